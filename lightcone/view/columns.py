"""Cells in lines, and lines in sections below each other, of a picture of so many columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

__all__ = ["DETAIL", "Cell", "Section", "draw_bar", "in_line", "stack"]

DETAIL = "bright_black"
_TITLE = "bold cyan"
_CHOSEN = "on grey30"
_BARS = ("━", "─", "=", "-")


@dataclass(frozen=True)
class Cell:
    """A text in a column: ``width`` 0 takes what is left, negative widths align to the right."""

    text: str | Text
    width: int = 0
    style: str = ""


@dataclass(frozen=True)
class Section:
    """Lines under a title, with captions over their last columns.

    Attributes:
        title: what it is about.
        captions: the cells that stand to the right of the title.
        lines: its lines, each of cells.
        chosen: the line that is marked, and shown where not all are.
    """

    title: str
    captions: tuple[Cell, ...]
    lines: list[list[Cell]]
    chosen: int | None = None


def stack(sections: list[Section], width: int, room: int) -> list[Text]:
    """The sections below each other: where not all fits, each gives way down to a few lines."""
    wanted = [len(section.lines) for section in sections]
    given = [0] * len(sections)
    left = room - len(sections)
    while left > 0 and given != wanted:
        for place, want in enumerate(wanted):
            if given[place] < want and left > 0:
                given[place] += 1
                left -= 1
    airy = left >= len(sections) - 1
    stacked: list[Text] = []
    for section, count in zip(sections, given, strict=True):
        if airy and stacked:
            stacked.append(Text(" " * width))
        cut = f" ({count} shown)" if count < len(section.lines) else ""
        title = Cell(f"{section.title}{cut}")
        head = in_line(_with_room(title, section.captions, width), width)
        head.stylize(DETAIL)
        head.stylize(_TITLE, 0, cell_len(str(title.text)) + 1)
        stacked.append(head)
        first = 0 if section.chosen is None else max(section.chosen - count + 1, 0)
        for number, cells in enumerate(section.lines[first : first + count], first):
            drawn = in_line(cells, width)
            if number == section.chosen:
                drawn.stylize(_CHOSEN)
            stacked.append(drawn)
    return stacked[:room]


def _with_room(title: Cell, captions: Sequence[Cell], width: int) -> list[Cell]:
    """The cells of a head: a title that is cut gets what the first caption leaves empty."""
    share = _share([title, *captions], width)
    if not captions or cell_len(str(title.text)) <= share:
        return [title, *captions]
    first, *others = captions
    more = abs(first.width) - cell_len(str(first.text))
    return [replace(title, width=share + more), replace(first, width=more + first.width), *others]


def _share(cells: Sequence[Cell], width: int) -> int:
    """The width of each cell that has none of its own."""
    fixed = sum(abs(cell.width) for cell in cells) + len(cells) + 1
    return max((width - fixed) // max(sum(not cell.width for cell in cells), 1), 4)


def in_line(cells: Sequence[Cell], width: int) -> Text:
    """The cells in one line; those without a width share what the others leave."""
    share = _share(cells, width)
    line = Text(" ", no_wrap=True)
    for number, cell in enumerate(cells):
        text = cell.text.copy() if isinstance(cell.text, Text) else Text(cell.text)
        text.stylize(cell.style) if cell.style else None
        size = abs(cell.width) or share
        text.truncate(size, overflow="ellipsis")
        text.align("right" if cell.width < 0 else "left", size)
        line.append_text(text)
        if number + 1 < len(cells):
            line.append(" ")
    line.truncate(width, overflow="crop", pad=True)
    return line


def draw_bar(value: float | None, total: float, width: int, ascii_only: bool) -> Text:
    """A bar of ``width`` columns, filled as far as ``value`` goes to ``total``."""
    full, empty = _BARS[2:] if ascii_only else _BARS[:2]
    part = 0.0 if value is None or total <= 0 else min(value / total, 1.0)
    filled = round(part * width)
    if value and not filled:
        filled = 1
    style = "red" if part > 0.9 else "yellow" if part > 0.7 else "green"
    return Text.assemble((full * filled, style), (empty * (width - filled), DETAIL))
