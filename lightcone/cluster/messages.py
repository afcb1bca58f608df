"""What tasks say to who wants them: many small messages, crossing the network as one piece.

The engine looks through whatever it is given, at every process that it passes. Through bytes
there is nothing to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack

__all__ = ["pack", "unpack"]

# Not every path or word of a command is text.
_ERRORS = "surrogateescape"


def pack(messages: Iterable[Mapping[str, Any]]) -> bytes:
    """Messages of plain values, in order."""
    packed: bytes = msgpack.packb(list(messages), unicode_errors=_ERRORS)
    return packed


def unpack(packed: bytes) -> list[dict[str, Any]]:
    """The messages in what :func:`pack` has made."""
    messages: list[dict[str, Any]] = msgpack.unpackb(packed, unicode_errors=_ERRORS)
    return messages
