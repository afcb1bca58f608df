"""What a driver is asked for, what it sends to a worker, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lightcone.spec.output import Output
from lightcone.state.manifest import Provenance

__all__ = ["WINDOW", "ExecRequest", "MakeRequest", "Outcome", "Result", "RunOptions"]

WINDOW = 4 << 20
"""How many bytes a command may have printed at most that its caller has not passed on yet."""


class Result(StrEnum):
    """What became of an order.

    ``GOOD``: somebody else had made the output by then. ``BUSY``: somebody else is making it, or
    one of its inputs. ``CHANGED``: an input is no longer what the order was given for. ``LEFT``:
    the allocation has not enough time left for it.
    """

    MADE = "made"
    GOOD = "good"
    BUSY = "busy"
    CHANGED = "changed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LEFT = "left"


class Outcome(StrEnum):
    """How a run ended: with everything looked at, or before that."""

    DONE = "done"
    INTERRUPTED = "interrupted"
    OUT_OF_TIME = "out of time"


@dataclass(frozen=True)
class RunOptions:
    """How a run is to be done.

    Attributes:
        jobs: how many recipes may be with the cluster at once.
        fail_fast: whether nothing more is begun once a recipe has failed.
        resume: whether a recipe finds what it had written when it was last interrupted or failed.
    """

    jobs: float = math.inf
    fail_fast: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class MakeRequest:
    """One output to make.

    Attributes:
        key: what it is called in messages; the run that wants it is part of that.
        output: what to make.
        provenance: what determines it, as the driver saw it.
        producers: the produced inputs: id, path, state directory and the version to read.
        claims: the directory of the claims' locks.
        scratch: the scratch directory, which a container is given.
        cpus: the processors it was given.
        grace: seconds between asking it to end and ending it.
        force: whether a good result is made again.
        resume: whether the recipe finds what it had written before.
        ends_at: when the allocation ends, in seconds since the epoch; None where nothing ends.
    """

    key: str
    output: Output
    provenance: Provenance
    producers: tuple[tuple[str, Path, Path, str], ...]
    claims: Path
    scratch: Path
    cpus: float
    grace: float
    force: bool
    resume: bool
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One command to run as it is; see :class:`Order`."""

    caller: str
    argv: tuple[str, ...]
    cpus: float
    gpus: int
    grace: float
