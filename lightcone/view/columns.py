"""The layout of a picture: cells joined into lines, lines stacked in sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

__all__ = ["DETAIL", "Cell", "Section", "draw_bar", "join_cells", "stack"]

DETAIL = "bright_black"
_TITLE = "bold cyan"
_SELECTED = "on grey30"
_BARS = ("━", "─", "=", "-")


@dataclass(frozen=True)
class Cell:
    """A text in a column; ``width`` 0 shares the rest, negative aligns right."""

    text: str | Text
    width: int = 0
    style: str = ""


@dataclass(frozen=True)
class Section:
    """Lines under a title, with captions over their last columns.

    Attributes:
        title: its heading.
        captions: the cells to the right of the title.
        lines: its lines, each of cells.
        selected: the line that is highlighted, and always among those shown.
    """

    title: str
    captions: tuple[Cell, ...]
    lines: list[list[Cell]]
    selected: int | None = None


def stack(sections: list[Section], width: int, room: int) -> list[Text]:
    """Stack the sections in ``room`` lines, each cut where not all fits."""
    full_heights = [len(section.lines) for section in sections]
    heights = [0] * len(sections)
    remaining = room - len(sections)
    while remaining > 0 and heights != full_heights:
        for index, most in enumerate(full_heights):
            if heights[index] < most and remaining > 0:
                heights[index] += 1
                remaining -= 1
    spaced = remaining >= len(sections) - 1
    stacked: list[Text] = []
    for section, count in zip(sections, heights, strict=True):
        if spaced and stacked:
            stacked.append(Text(" " * width))
        cut = f" ({count} shown)" if count < len(section.lines) else ""
        title = Cell(f"{section.title}{cut}")
        head = join_cells(_fit_title(title, section.captions, width), width)
        head.stylize(DETAIL)
        head.stylize(_TITLE, 0, cell_len(str(title.text)) + 1)
        stacked.append(head)
        first = 0 if section.selected is None else max(section.selected - count + 1, 0)
        for number, cells in enumerate(section.lines[first : first + count], first):
            drawn = join_cells(cells, width)
            if number == section.selected:
                drawn.stylize(_SELECTED)
            stacked.append(drawn)
    return stacked[:room]


def _fit_title(title: Cell, captions: Sequence[Cell], width: int) -> list[Cell]:
    """The cells of a heading, its title widened where its first caption has space."""
    room = _flexible_width([title, *captions], width)
    if not captions or cell_len(str(title.text)) <= room:
        return [title, *captions]
    first, *others = captions
    spare = abs(first.width) - cell_len(str(first.text))
    return [replace(title, width=room + spare), replace(first, width=spare + first.width), *others]


def _flexible_width(cells: Sequence[Cell], width: int) -> int:
    """The width of each cell without a fixed width."""
    fixed = sum(abs(cell.width) for cell in cells) + len(cells) + 1
    return max((width - fixed) // max(sum(not cell.width for cell in cells), 1), 4)


def join_cells(cells: Sequence[Cell], width: int) -> Text:
    """Join the cells into one line of ``width`` columns."""
    flexible = _flexible_width(cells, width)
    line = Text(" ", no_wrap=True)
    for number, cell in enumerate(cells):
        text = cell.text.copy() if isinstance(cell.text, Text) else Text(cell.text)
        text.stylize(cell.style) if cell.style else None
        size = abs(cell.width) or flexible
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
    fraction = 0.0 if value is None or total <= 0 else min(value / total, 1.0)
    filled = round(fraction * width)
    if value and not filled:
        filled = 1
    style = "red" if fraction > 0.9 else "yellow" if fraction > 0.7 else "green"
    return Text.assemble((full * filled, style), (empty * (width - filled), DETAIL))
