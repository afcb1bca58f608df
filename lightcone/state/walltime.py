"""The time that an allocation has left, and what fits into it."""

from __future__ import annotations

import math
import time

from lightcone.spec.output import Output
from lightcone.system.units import format_seconds

__all__ = ["Walltime"]

# Seconds between the moment when the recipes have to have ended and the allocation's end.
_MARGIN = 5.0


class Walltime:
    """The end of the allocation that a run is in.

    Args:
        ends_at: when it is, in seconds since the epoch; None for a run without an end.
        grace: seconds that recipes are given to end.
    """

    def __init__(self, ends_at: float | None, grace: float) -> None:
        self.ends_at = ends_at
        self._reserve = grace + _MARGIN

    def left(self) -> float:
        """Seconds until the recipes are to be asked to end, below 0 when that is past."""
        if self.ends_at is None:
            return math.inf
        return self.ends_at - self._reserve - time.time()

    def objection(self, output: Output) -> str | None:
        """Why the output's recipe is not to be begun now, or None."""
        needed, left = output.resources.time_limit, self.left()
        if left <= 0:
            return "the allocation is about to end"
        if needed is not None and needed > left:
            return (
                f"its time_limit is {format_seconds(needed)}, and the allocation has "
                f"{format_seconds(left)} left"
            )
        return None
