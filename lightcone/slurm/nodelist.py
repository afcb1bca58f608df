"""Expansion of SLURM's abbreviated lists of node names and counts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

__all__ = ["expand_counts", "expand_nodes"]

# A name is runs of plain characters and brackets; commas inside brackets do not end it.
_NAME = re.compile(r"(?:[^\[\],]|\[[^\[\]]*\])+")
_PART = re.compile(r"\[([^\]]*)\]|([^\[\]]+)")
_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def expand_nodes(text: str) -> tuple[str, ...]:
    """Expand a list of nodes such as ``nid[001-004,9],login1``, in order.

    Raises:
        ValueError: where it is no such list.
    """
    if not text:
        return ()
    names: list[str] = []
    position = 0
    while True:
        match = _NAME.match(text, position)
        if match is None:
            raise ValueError(f"{text!r} is not a list of nodes")
        names += map("".join, itertools.product(*_choices(match[0])))
        position = match.end()
        if position == len(text):
            return tuple(names)
        if text[position] != ",":
            raise ValueError(f"{text!r} is not a list of nodes")
        position += 1


def _choices(name: str) -> Iterator[list[str]]:
    for ranges, plain in _PART.findall(name):
        yield (
            [plain] if plain else [number for each in ranges.split(",") for number in _range(each)]
        )


def _range(text: str) -> list[str]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a range of nodes")
    first, last = match[1], match[2] or match[1]
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def expand_counts(text: str) -> tuple[int, ...]:
    """Expand a list of counts such as ``4(x2),2`` to 4, 4 and 2.

    Raises:
        ValueError: where it is no such list.
    """
    counts: list[int] = []
    for part in text.split(",") if text else ():
        match = _COUNT.fullmatch(part)
        if match is None:
            raise ValueError(f"{text!r} is not a list of counts")
        counts += [int(match[1])] * int(match[2] or 1)
    return tuple(counts)
