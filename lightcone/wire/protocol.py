"""The wire format: framed messages, task keys, and calls for workers to run.

A call is a function, by name, and its argument. The scheduler passes it on unread, so only workers
import the function and what it needs.
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

PROTOCOL = 6

"""The version of the protocol between callers, scheduler and workers of a session."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

"""The version of Python that callers, scheduler and workers must share."""


LOST = "its worker was lost"

"""The reason of a task that ended without a report and without a known cause."""

HEADER_SIZE = 4

"""The size of a frame's header, which holds the frame's length, in bytes."""

# Not every path or word of a command is text.
_ERRORS = "surrogateescape"


def pack(messages: Iterable[Mapping[str, Any]]) -> bytes:
    """Serialize messages, in order."""
    packed: bytes = msgpack.packb(list(messages), unicode_errors=_ERRORS)
    return packed


def unpack(packed: bytes) -> list[dict[str, Any]]:
    """Deserialize the messages that :func:`pack` serialized."""
    messages: list[dict[str, Any]] = msgpack.unpackb(packed, unicode_errors=_ERRORS)
    return messages


def frame(packed: bytes) -> bytes:
    """Prefix packed messages with their length."""
    return len(packed).to_bytes(HEADER_SIZE) + packed


def frame_length(head: bytes | bytearray) -> int:
    """Return the length, in a frame's header, of what follows it."""
    return int.from_bytes(head)


_PREFIX = "lightcone-"


def topic_of(run: str) -> str:
    """Return the topic of the messages for a run."""
    return f"{_PREFIX}{run}"


def key_of(run: str, name: str) -> str:
    """Return the key of a run's task; ``run`` contains no ``-``."""
    return f"{_PREFIX}{run}-{name}"


def is_lightcone_key(key: Any) -> bool:
    """Return whether a key or topic is lightcone's, not a user program's."""
    return isinstance(key, str) and key.startswith(_PREFIX)


def run_of(key: str) -> str:
    """Return the run of the task with this key."""
    return key.removeprefix(_PREFIX).partition("-")[0]


def name_of(key: str) -> str:
    """Return the output's name, the part of a key between run and number."""
    name = key.removeprefix(_PREFIX).partition("-")[2]
    head, _, number = name.rpartition("-")
    return head if number.isdigit() else name


def pack_call(function: str, argument: Any) -> bytes:
    """Serialize a call of ``function``, written ``module:name``, for :func:`run_call`."""
    return pickle.dumps((function, argument), pickle.HIGHEST_PROTOCOL)


def run_call(call: bytes) -> None:
    """Run, on a worker, a call that :func:`pack_call` serialized."""
    from pkgutil import resolve_name

    function, argument = pickle.loads(call)  # noqa: S301 (from who holds the session's key)
    resolve_name(function)(argument)
