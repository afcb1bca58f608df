"""The rows of the comparison, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.rows.callers import callers
from benchmarks.rows.commands import nothing_to_do, status
from benchmarks.rows.ending import idle, stop
from benchmarks.rows.first import first_cold, first_live
from benchmarks.rows.planning import planning
from benchmarks.rows.recipes import levels_18, recipes
from benchmarks.rows.workers import workers
from benchmarks.samples import Row

__all__ = ["ROWS"]

ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "nothing": nothing_to_do,
    "status": status,
    "first-cold": first_cold,
    "first-live": first_live,
    "levels": levels_18,
    "recipes": recipes,
    "planning": planning,
    "stop": stop,
    "idle": idle,
    "callers": callers,
    "workers": workers,
}
