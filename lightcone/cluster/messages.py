"""Messages: small mappings of plain values, which cross the network several in one piece.

The engine looks through whatever it is given, at every process that it passes. Through bytes
there is nothing to look. On a connection of our own a piece is preceded by its length, four bytes
with the most significant first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack

__all__ = ["HEAD", "LOST", "framed", "length", "pack", "unpack"]

LOST = "its worker was lost"
"""Why a task ended without having said so, where nobody is to blame for it that is known."""

HEAD = 4
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


def framed(packed: bytes) -> bytes:
    """A piece with its length before it."""
    return len(packed).to_bytes(HEAD) + packed


def length(head: bytes | bytearray) -> int:
    """The length of the piece that follows."""
    return int.from_bytes(head)
