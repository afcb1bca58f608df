"""What was measured, as markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.samples import Aim, Row, Spread

__all__ = ["as_json", "as_lines", "as_markdown", "insert"]

_BEGIN, _END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_REACHED = {True: "yes", False: "**no**", None: "not measured"}


def as_markdown(rows: Sequence[Row], heading: str) -> str:
    """A table of the aims, and one table for each row."""
    lines = [heading, "", "### The aims", ""]
    lines += ["| what | measured | aim | reached |", "|---|---|---|---|"]
    for row in rows:
        lines += [_aim(row, aim) for aim in row.aims]
    lines += ["", "### Everything that was measured", ""]
    lines += ["Medians, with the least and the largest in brackets; *n* is how many were taken."]
    for row in rows:
        lines += ["", f"**{row.title}**", "", f"| who | {_unit(row)} | n |", "|---|---|---|"]
        for name, values in row.samples.items():
            lines.append(f"| {name} | {_spread(Spread.of(values))} | {len(values)} |")
        lines += [f"| {name} | absent: {why} | 0 |" for name, why in row.absent.items()]
        lines += ["", *row.notes] if row.notes else []
    return "\n".join(lines) + "\n"


def as_lines(rows: Sequence[Row]) -> str:
    """The medians, for whoever waits."""
    return "\n".join(
        f"{row.name}: {name} {_number(Spread.of(values).median)} {row.unit}"
        for row in rows
        for name, values in row.samples.items()
    )


def as_json(rows: Sequence[Row], **about: Any) -> str:
    """Every single value."""
    return json.dumps({**about, "rows": [dataclasses.asdict(row) for row in rows]}, indent=1)


def insert(page: Path, text: str) -> None:
    """Replace what stands between the two marks of a page.

    Raises:
        ValueError: where the page does not have both.
    """
    content = page.read_text()
    before, begin, rest = content.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page} has no '{_BEGIN}' with a '{_END}' after it")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


def _aim(row: Row, aim: Aim) -> str:
    measured = "" if aim.value is None else f"{_spread(aim.value)} {aim.unit}"
    limit = f"{'≥' if aim.at_least else '≤'} {aim.limit:.3g} {aim.unit}"
    what = f"{row.title.partition(':')[0]}: {aim.text}"
    return f"| {what} | {measured} | {limit} | {_REACHED[aim.reached]} |"


def _unit(row: Row) -> str:
    return {"s": "seconds", "1/s": "outputs a second", "MB": "MB", "%": "% of a core"}[row.unit]


def _spread(spread: Spread) -> str:
    if spread.low == spread.high:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)}–{_number(spread.high)})"


def _number(value: float) -> str:
    """Three figures, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
