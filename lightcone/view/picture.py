"""A snapshot of a session, drawn as lines of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from lightcone.system.units import format_bytes, format_moment, format_seconds
from lightcone.view.choice import Choice, Mode, Rows, Sort, rows
from lightcone.view.columns import DETAIL, Cell, Section, draw_bar, join_cells, stack

__all__ = ["clean", "draw", "draw_log", "plain"]

_CONTROL = re.compile(
    r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)|[\x00-\x1f\x7f-\x9f]"
)
_BAR = "on grey23"


def draw(
    snapshot: dict[str, Any],
    width: int,
    height: int,
    choice: Choice | None = None,
    *,
    silent_seconds: float = 0.0,
    plain_bars: bool = False,
) -> list[Text]:
    """Draw the session in at most ``height`` lines of ``width`` columns.

    Args:
        snapshot: that of the session.
        width: in columns.
        height: in lines.
        choice: the state of the screen; None where it is not interactive.
        silent_seconds: seconds since the session's last snapshot, 0 unless that is long.
        plain_bars: whether bars are made of ASCII alone.
    """
    shown = rows(snapshot, choice or Choice())
    sections = [
        _workers(snapshot["workers"], width, plain_bars),
        *_runs(snapshot["runs"], width, plain_bars),
        _running(snapshot, shown, choice, width),
        *_waiting_and_failures(snapshot, shown, choice, width),
    ]
    top = [_header(snapshot, width, silent_seconds)]
    bottom = [] if choice is None else [_footer(choice, width)]
    room = height - len(top) - len(bottom)
    lines = stack(sections, width, room)
    lines += [Text(" " * width)] * (room - len(lines))
    return [*top, *lines, *bottom][:height]


def draw_log(
    entry: dict[str, Any], lines: Sequence[str], width: int, height: int, scroll: int
) -> list[Text]:
    """Draw the end of an entry's log, scrolled ``scroll`` lines up."""
    head = join_cells(
        [Cell(clean(entry["name"])), Cell(clean(entry["log"]), -max(width // 2, 20))], width
    )
    head.stylize(f"bold {_BAR}")
    room = height - 2
    end = max(len(lines) - scroll, min(len(lines), room))
    shown = [Text(set_cell_size(clean(line), width)) for line in lines[max(end - room, 0) : end]]
    shown += [Text(" " * width)] * (room - len(shown))
    above = f"  {len(lines) - end} lines below" if end < len(lines) else ""
    foot = Text(set_cell_size(f" up and down scroll   q goes back{above}", width), style=_BAR)
    return [head, *shown, foot][:height]


def plain(snapshot: dict[str, Any]) -> str:
    """The whole session as text for a file or a pipe."""
    reasons = [row["why"] for row in snapshot["waiting"]]
    reasons += [row["reason"] for row in snapshot["failures"]]
    width = max(79, *(len(reason) + 60 for reason in reasons)) if reasons else 79
    every = sum(
        len(snapshot[name]) for name in ("workers", "running", "waiting", "failures", "runs")
    )
    drawn = draw(snapshot, width, every + 20, plain_bars=True)
    return "\n".join(line.plain.rstrip() for line in drawn).rstrip()


def clean(text: str) -> str:
    """Remove control sequences and unencodable characters from a text."""
    return _CONTROL.sub("", text.expandtabs()).encode(errors="replace").decode()


def _header(snapshot: dict[str, Any], width: int, silent_seconds: float) -> Text:
    started, now = (datetime.fromisoformat(snapshot[key]) for key in ("started", "at"))
    facts = [f"up {format_seconds(max((now - started).total_seconds(), 0.0))}"]
    facts.append("idle" if snapshot["idle"] else "in use")
    if snapshot["leases"]:
        facts.append(_counted(len(snapshot["leases"]), "lease"))
    if snapshot["other_tasks"]:
        facts.append(f"{_counted(snapshot['other_tasks'], 'task')} of other programs")
    if silent_seconds:
        facts = [f"no word from it for {format_seconds(silent_seconds)}"]
    text = "  ".join(facts)
    header = join_cells([Cell(snapshot["name"]), Cell(text, -cell_len(text))], width)
    header.stylize(f"bold {'white on red' if silent_seconds else 'white on dark_blue'}")
    return header


def _workers(workers: list[dict[str, Any]], width: int, ascii_only: bool) -> Section:
    bar = max((width - 66) // 2, 8)
    lines = []
    for worker in workers:
        cpus, memory = worker["cpus_used"], worker["memory_used"]
        used = "?" if cpus is None else f"{cpus:.1f}"
        bytes_used = "?" if memory is None else format_bytes(memory)
        taken = f"{worker['cpus_taken']:g}"
        lines.append(
            [
                Cell(clean(worker["host"])),
                Cell(draw_bar(cpus, worker["cpus"], bar, ascii_only), bar),
                Cell(f"{used} of {worker['cpus']:g}", -10),
                Cell(draw_bar(memory, worker["memory"], bar, ascii_only), bar),
                Cell(f"{bytes_used} of {format_bytes(worker['memory'])}", -22),
                Cell(taken, -6, DETAIL),
            ]
        )
        if any(each["gpus"] for each in workers):
            lines[-1].append(Cell(f"{worker['gpus_taken']}/{worker['gpus']}", -6))
    captions = (
        Cell("cpus busy", -bar - 11),
        Cell("memory", -bar - 23),
        Cell("taken", -6),
        *([Cell("gpus", -6)] if any(each["gpus"] for each in workers) else []),
    )
    if not workers:
        lines = [[Cell("no worker at the moment: one is being started", style="yellow")]]
    return Section(f"WORKERS {len(workers)}", captions, lines)


def _runs(runs: list[dict[str, Any]], width: int, ascii_only: bool) -> list[Section]:
    bar, lines = max(width // 6, 8), []
    for run in runs:
        counts, total = run["counts"] or {}, run["total"]
        failures = [
            f", {counts[name]} {name}" for name in ("failed", "blocked") if counts.get(name)
        ]
        done = sum(counts.values())
        lines.append(
            [
                Cell(clean(run["name"])),
                Cell("" if total is None else draw_bar(done, total, bar, ascii_only), bar),
                Cell(
                    Text.assemble(
                        f"{done} of {total}" if total else "", ("".join(failures), "red")
                    ),
                    28,
                ),
                Cell(format_seconds(run["seconds"]), -9),
            ]
        )
    return [Section(f"RUNS {len(runs)}", (Cell("for", -9),), lines)] if runs else []


def _running(snapshot: dict[str, Any], shown: Rows, choice: Choice | None, width: int) -> Section:
    wide = width >= 100
    lines = []
    for row in shown.running:
        cpus, memory = row["cpus_used"], row["memory_used"]
        requested = f"/{row['cpus']:g}"
        line = [
            Cell(clean(row["name"])),
            Cell(format_seconds(row["seconds"]), -11, "green"),
            Cell(f"{'?' if cpus is None else f'{cpus:.1f}'}{requested}", -9),
            Cell("?" if memory is None else format_bytes(memory), -11),
            Cell(clean(row["host"]), -16, DETAIL),
        ]
        lines.append([*line, Cell(clean(row["run"]), -26, DETAIL)] if wide else line)
    captions = [Cell("for", -11), Cell("cpus", -9), Cell("memory", -11), Cell("worker", -16)]
    captions += [Cell("run", -26)] if wide else []
    if not shown.running:
        empty = "nothing of that name" if choice and choice.filter else "nothing"
        lines = [[Cell(empty, style=DETAIL)]]
    order = f", by {choice.sort.value}" if choice and choice.sort is not Sort.STARTED else ""
    title = f"RUNNING {snapshot['running_count']}{order}"
    return Section(title, tuple(captions), lines, _selected_index(shown.running, shown, choice))


def _waiting_and_failures(
    snapshot: dict[str, Any], shown: Rows, choice: Choice | None, width: int
) -> list[Section]:
    """The sections of waiting and failed outputs, where there are any."""
    names = [cell_len(row["name"]) for row in (*shown.waiting, *shown.failures)]
    room = min(max(names, default=0) + 1, width * 2 // 5)
    waiting = [
        [Cell(clean(row["name"]), room), Cell(clean(row["why"]), 0, "yellow")]
        for row in shown.waiting
    ]
    moments = [format_moment(row["at"]) for row in shown.failures]
    moment_width = max(map(len, moments), default=0)
    failures = [
        [
            Cell(clean(row["name"]), room),
            Cell(moment, moment_width, DETAIL),
            Cell(clean(row["reason"]), 0, "red"),
        ]
        for row, moment in zip(shown.failures, moments, strict=True)
    ]
    sections = (
        (f"WAITING {snapshot['waiting_count']}", waiting, shown.waiting),
        (f"FAILED {len(snapshot['failures'])}", failures, shown.failures),
    )
    return [
        Section(title, (), lines, _selected_index(entries, shown, choice))
        for title, lines, entries in sections
        if lines
    ]


def _selected_index(
    entries: list[dict[str, Any]], shown: Rows, choice: Choice | None
) -> int | None:
    if choice is None:
        return None
    ids = [row["id"] for row in entries]
    return ids.index(shown.selected) if shown.selected in ids else None


def _footer(choice: Choice, width: int) -> Text:
    text, style = " q leave  enter log  c cancel  / filter  s sort  up/down choose", _BAR
    if choice.mode is Mode.CANCEL and choice.entry is not None:
        text = f" Cancel {clean(choice.entry['run'])}, with all its recipes, as Ctrl-C does? y/n"
        style = "bold white on red"
    elif choice.mode is Mode.FILTER:
        text = f" /{choice.filter}_   enter keeps it, escape drops it"
    elif choice.note:
        text, style = f" {clean(choice.note)}", f"bold {_BAR}"
    elif choice.filter:
        text = f" only what has '{choice.filter}'; escape shows all {text}"
    return Text(set_cell_size(text, width), style=style)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
