"""Whether a run is to stop before everything has been made."""

from __future__ import annotations

from lightcone.run.report import Reporter
from lightcone.slurm import jobs

__all__ = ["Stop"]


class Stop:
    """Why a run stops: it is interrupted, or the allocation that it is in ends.

    Args:
        job: the allocation, if there is one.
        reporter: is told, and knows, that its time is over.

    Attributes:
        interrupts: how often the recipes have been asked to end.
    """

    def __init__(self, job: int | None, reporter: Reporter) -> None:
        self.interrupts = 0
        self._job = job
        self._reporter = reporter

    @property
    def is_wanted(self) -> bool:
        """Whether nothing more is to be begun."""
        return bool(self.interrupts) or self._reporter.out_of_time

    def is_over(self) -> bool:
        """Whether the allocation that the session belongs to has ended, which is then told."""
        if self._job is None or self._reporter.out_of_time:
            return self._reporter.out_of_time
        if jobs.job_state(self._job).state.is_over:
            self._reporter.out_of_time = True
            self._reporter.note(f"the allocation, SLURM job {self._job}, has ended")
        return self._reporter.out_of_time
