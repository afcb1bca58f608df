"""The remaining time of an allocation, and the recipes that fit."""

from __future__ import annotations

import math
import time

from lightcone.spec.output import Output
from lightcone.system.units import format_seconds

__all__ = ["Walltime"]

# Seconds between the moment when the recipes have to have ended and the allocation's end.
_MARGIN = 5.0


class Walltime:
    """The end of the allocation that contains a run.

    Args:
        ends_at: when it is, in seconds since the epoch; None for a run without an end.
        grace: seconds that recipes are given to end.
    """

    def __init__(self, ends_at: float | None, grace: float) -> None:
        self.ends_at = ends_at
        self._reserve = grace + _MARGIN

    def remaining(self) -> float:
        """Return the seconds until recipes must end; negative after that."""
        if self.ends_at is None:
            return math.inf
        return self.ends_at - self._reserve - time.time()

    def refusal_reason(self, output: Output) -> str | None:
        """Return why the output's recipe should not start now, or None."""
        needed, remaining = output.resources.time_limit, self.remaining()
        if remaining <= 0:
            return "the allocation is about to end"
        if needed is not None and needed > remaining:
            return (
                f"its time_limit is {format_seconds(needed)}, and the allocation has "
                f"{format_seconds(remaining)} left"
            )
        return None
