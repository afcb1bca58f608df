"""What a driver sends to a worker, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lightcone.analysis.manifest import Parts
from lightcone.analysis.output import Output

__all__ = ["ExecOrder", "Order", "Result"]


class Result(StrEnum):
    """What became of an order.

    ``GOOD``: somebody else had made the output by then. ``BUSY``: somebody else is making it, or
    one of its inputs. ``CHANGED``: an input is no longer what the order was given for.
    """

    MADE = "made"
    GOOD = "good"
    BUSY = "busy"
    CHANGED = "changed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Order:
    """One output to make.

    Attributes:
        run: the run that wants it.
        topic: where its messages go.
        output: what to make.
        parts: what determines it, as the driver saw it.
        producers: the produced inputs: id, path, state directory and the version to read.
        claims: the directory of the claims' locks.
        scratch: the scratch directory, which a container is given.
        cpus: the processors it was given.
        grace: seconds between asking it to end and ending it.
        force: whether a good result is made again.
        resume: whether the recipe finds what it had written before.
    """

    run: str
    topic: str
    output: Output
    parts: Parts
    producers: tuple[tuple[str, Path, Path, str], ...]
    claims: Path
    scratch: Path
    cpus: float
    grace: float
    force: bool
    resume: bool


@dataclass(frozen=True, slots=True)
class ExecOrder:
    """One command to run as it is; see :class:`Order`."""

    run: str
    topic: str
    caller: str
    argv: tuple[str, ...]
    cpus: float
    gpus: int
    grace: float
