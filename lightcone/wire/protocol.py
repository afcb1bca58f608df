"""What a worker is to do: a function, by name, and its argument, passed on unopened.

So only workers import the function and what it needs.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgpack

__all__ = [
    "HEADER_SIZE",
    "LOST",
    "PROTOCOL",
    "PYTHON",
    "frame",
    "frame_length",
    "is_lightcone_key",
    "key_of",
    "name_of",
    "pack",
    "pack_call",
    "run_call",
    "run_of",
    "topic_of",
    "unpack",
]

PROTOCOL = 4

"""The number of the protocol that callers, scheduler and workers of a session speak."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

"""The Python that they need to have in common."""


LOST = "its worker was lost"

"""Why a task ended without having said so, where nobody is to blame for it that is known."""

HEADER_SIZE = 4

"""How many bytes a piece's length takes."""

# Not every path or word of a command is text.
_ERRORS = "surrogateescape"


def pack(messages: Iterable[Mapping[str, Any]]) -> bytes:
    """Messages, in order."""
    packed: bytes = msgpack.packb(list(messages), unicode_errors=_ERRORS)
    return packed


def unpack(packed: bytes) -> list[dict[str, Any]]:
    """The messages in what :func:`pack` has made."""
    messages: list[dict[str, Any]] = msgpack.unpackb(packed, unicode_errors=_ERRORS)
    return messages


def frame(packed: bytes) -> bytes:
    """A piece with its length before it."""
    return len(packed).to_bytes(HEADER_SIZE) + packed


def frame_length(head: bytes | bytearray) -> int:
    """The length of the piece that follows."""
    return int.from_bytes(head)


_PREFIX = "lightcone-"


def topic_of(run: str) -> str:
    """The topic of the messages for a run."""
    return f"{_PREFIX}{run}"


def key_of(run: str, name: str) -> str:
    """The key of a run's task; ``run`` contains no ``-``."""
    return f"{_PREFIX}{run}-{name}"


def is_lightcone_key(key: Any) -> bool:
    """Whether a task, or a topic, is one of ours, and not of a program of the user's."""
    return isinstance(key, str) and key.startswith(_PREFIX)


def run_of(key: str) -> str:
    """The run whose task has the key."""
    return key.removeprefix(_PREFIX).partition("-")[0]


def name_of(key: str) -> str:
    """The output's name, which stands in a key between the run and a number."""
    name = key.removeprefix(_PREFIX).partition("-")[2]
    head, _, number = name.rpartition("-")
    return head if number.isdigit() else name


def pack_call(function: str, argument: Any) -> bytes:
    """A call of ``function``, written ``module:name``, for :func:`perform` on a worker."""
    return pickle.dumps((function, argument), pickle.HIGHEST_PROTOCOL)


def run_call(call: bytes) -> None:
    """Make the call that was wrapped."""
    from pkgutil import resolve_name

    function, argument = pickle.loads(call)  # noqa: S301 (from who holds the session's key)
    resolve_name(function)(argument)
