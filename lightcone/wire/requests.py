"""Requests to a driver and to workers, and their results."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from lightcone.spec.output import Output
from lightcone.state.manifest import Provenance

__all__ = [
    "WINDOW",
    "ExecRequest",
    "MakeRequest",
    "Outcome",
    "ProducedInput",
    "Result",
    "RunOptions",
]

WINDOW = 4 << 20
"""The most bytes of a command's output that its caller may not have passed on yet."""


class Result(StrEnum):
    """The result of a request to make an output.

    ``GOOD``: another run had made the output by then. ``BUSY``: another run is making it, or one of
    its inputs. ``CHANGED``: an input is no longer as the run planned, and another attempt may find
    it good. ``LEFT``: the allocation has not enough time left for it.
    """

    MADE = "made"
    GOOD = "good"
    BUSY = "busy"
    CHANGED = "changed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LEFT = "left"


class Outcome(StrEnum):
    """How a run ended: with every output considered, or before that."""

    DONE = "done"
    INTERRUPTED = "interrupted"
    OUT_OF_TIME = "out of time"


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        jobs: how many recipes may be with the cluster at once.
        fail_fast: whether no further recipe is started once a recipe has failed.
        resume: whether a recipe finds what it had written when it was last interrupted or failed.
        observe: whether recipes are observed even if the settings do not say so.
    """

    jobs: float = math.inf
    fail_fast: bool = False
    resume: bool = False
    observe: bool = False


class ProducedInput(NamedTuple):
    """An input that another output makes: its record as the run planned it.

    Attributes:
        id: the id of the input, as its consumer declares it.
        path: where it is.
        state_dir: the state directory of the output that makes it.
        version: the version of its bytes.
        identity: the identity of the output that makes it.
    """

    id: str
    path: Path
    state_dir: Path
    version: str
    identity: str


@dataclass(frozen=True, slots=True)
class MakeRequest:
    """A request to make one output.

    Attributes:
        key: its name in messages, of which the run is a part.
        output: what to make.
        provenance: what determines it, as the driver read it.
        produced: the inputs that outputs make.
        claims: the directory of the claims' locks.
        scratch: the scratch directory, which a container is given.
        cpus: the processors it was given.
        grace: seconds between asking the recipe to end and killing it.
        force: whether a good result is made again.
        resume: whether the recipe finds what it had written before.
        resume_by_rule: whether that is so in every run, because the settings have it.
        ends_at: when the allocation ends, in seconds since the epoch; None without an end.
        observe: whether the recipe is observed, where that is possible.
    """

    key: str
    output: Output
    provenance: Provenance
    produced: tuple[ProducedInput, ...]
    claims: Path
    scratch: Path
    cpus: float
    grace: float
    force: bool
    resume: bool
    ends_at: float | None
    observe: bool = False
    resume_by_rule: bool = False


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A request to run one command as it is; see :class:`MakeRequest`."""

    caller: str
    argv: tuple[str, ...]
    cpus: float
    gpus: int
    grace: float
