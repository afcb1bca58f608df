"""How cost grows, drawn as SVG by hand: a panel for each that grows, both axes logarithmic."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.rows.workers import EACH
from benchmarks.samples import Row

__all__ = ["draw"]

_Points = Mapping[str, list[tuple[float, float]]]
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 240, 60, 40, 190
_LINE = 14
_COLOURS = ("#0969da", "#6e7781", "#bc4c00", "#1a7f37", "#8250df")


def draw(rows: Sequence[Row]) -> str:
    """The chart of the rows that were measured at several sizes."""
    panels = [
        ("instant recipes, live session", _recipes(rows)),
        ("workers, each with as many recipes", _workers(rows)),
        ("(output, universe) pairs planned", _pairs(rows)),
    ]
    panels = [(title, points) for title, points in panels if points]
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT + 100}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, points) in enumerate(panels):
        parts += _panel(_LEFT + number * (_WIDTH + _GAP), title, points)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _recipes(rows: Sequence[Row]) -> _Points:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        match = re.fullmatch(r"recipes-(\d+)", row.name)
        for name, values in row.samples.items() if match else ():
            if not name.startswith("Ray"):
                count = int(match[1]) if match else 0
                found.setdefault(name, []).append((count, count / statistics.median(values)))
    return found


def _workers(rows: Sequence[Row]) -> _Points:
    points = _sizes(rows, "workers")
    alone = [(count, float(EACH)) for count, _ in points]
    return {"lc run": points, "the recipes alone": alone} if points else {}


def _pairs(rows: Sequence[Row]) -> _Points:
    points = _sizes(rows, "planning")
    return {"lc run": points} if points else {}


def _sizes(rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """The points of a row whose samples have names that begin with their size."""
    samples = next((row.samples for row in rows if row.name == name), {})
    return [
        (float(who.partition(" ")[0].replace(",", "")), statistics.median(values))
        for who, values in samples.items()
    ]


def _panel(left: int, title: str, points: _Points) -> list[str]:
    across = _decades([x for line in points.values() for x, _ in line])
    up = _decades([y for line in points.values() for _, y in line])

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - across[0]) / (across[-1] - across[0])
        high = (math.log10(y) - up[0]) / (up[-1] - up[0])
        return left + right * _WIDTH, _TOP + (1 - high) * _HEIGHT

    parts = [f'<text x="{left}" y="{_TOP - 14}" font-weight="bold">{title}</text>']
    for power in across:
        x, _ = place(10.0**power, 10.0 ** up[0])
        parts.append(_line(x, _TOP, x, _TOP + _HEIGHT))
        parts.append(_text(x, _TOP + _HEIGHT + 18, f"{10**power:,}", "middle"))
    for power in up:
        _, y = place(10.0 ** across[0], 10.0**power)
        parts.append(_line(left, y, left + _WIDTH, y))
        parts.append(_text(left - 6, y + 4, f"{10.0**power:g} s", "end"))
    ends = []
    for colour, (name, line) in zip(_COLOURS * len(points), points.items(), strict=False):
        placed = [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        ends.append((placed[-1][1], placed[-1][0], name, colour))
    lowest = 0.0
    for y, x, name, colour in sorted(ends):
        # Names of lines that end close together stand below each other.
        lowest = max(y + 4, lowest + _LINE)
        parts.append(f'<text x="{x + 8:.1f}" y="{lowest:.1f}" fill="{colour}">{name}</text>')
    return parts


def _decades(values: Sequence[float]) -> range:
    low = math.floor(math.log10(min(values)))
    return range(low, max(math.ceil(math.log10(max(values))), low + 1) + 1)


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="#d0d7de"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#57606a" text-anchor="{anchor}">{text}</text>'
