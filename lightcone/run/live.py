"""The report on a terminal: scrolling lines above a live progress display."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lightcone.run.report import PlainReporter, Verbosity
from lightcone.spec.output import Key, Output
from lightcone.system.units import format_seconds

__all__ = ["LiveReporter"]

_MAX_SHOWN = 6
_REFRESH = 0.05


class LiveReporter(PlainReporter):
    """A :class:`PlainReporter` with a live display of the running recipes below it."""

    def __init__(self, verbosity: Verbosity = Verbosity.NORMAL) -> None:
        super().__init__(verbosity)
        self.console = Console(highlight=False, soft_wrap=True)
        self.total = 0
        self.refreshed = 0.0
        self.running: dict[Key, tuple[str, float]] = {}
        self.live = Live(
            get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True
        )

    def begin(self, total: int, session: str) -> None:
        super().begin(total, session)
        self.total = total
        if os.environ.get("TERM") != "dumb":
            self.live.start()

    def print_line(self, text: str) -> None:
        name, colon, rest = text.partition(": ")
        styled = Text.from_ansi(text)
        if colon and " " not in name:
            styled = Text.assemble((f"{name}: ", "cyan"), (rest, _style(rest)))
        if self.live.is_started and time.monotonic() - self.refreshed > _REFRESH:
            self.refreshed = time.monotonic()
            self.live.refresh()
        self.console.print(styled)

    def started(self, output: Output) -> None:
        self.running[output.key] = (output.name, self._seconds())

    def up_to_date(self, output: Output) -> None:
        self.running.pop(output.key, None)
        super().up_to_date(output)

    def unconfirmed(self, output: Output, why: str) -> None:
        self.running.pop(output.key, None)
        super().unconfirmed(output, why)

    def made(self, output: Output, seconds: float) -> None:
        self.running.pop(output.key, None)
        super().made(output, seconds)

    def failed(self, output: Output, failure: Mapping[str, Any]) -> None:
        self.running.pop(output.key, None)
        super().failed(output, failure)

    def interrupted(self, output: Output, end: Mapping[str, Any]) -> None:
        self.running.pop(output.key, None)
        super().interrupted(output, end)

    def finish(self) -> None:
        self.live.stop()
        super().finish()

    def _render(self) -> Group:
        done = sum(self.counts.values())
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=max(self.total, 1), completed=done, width=30),
            f"{done}/{self.total} outputs",
            f"{len(self.running)} running",
            format_seconds(self._seconds()),
        )
        lines = [
            Text(f"  {name}  {format_seconds(self._seconds() - started)}", style="dim")
            for name, started in list(self.running.values())[:_MAX_SHOWN]
        ]
        if len(self.running) > _MAX_SHOWN:
            lines.append(Text(f"  and {len(self.running) - _MAX_SHOWN} more", style="dim"))
        return Group(grid, *lines)


def _style(text: str) -> str:
    if text.startswith("FAILED"):
        return "bold red"
    if text.startswith(("blocked", "interrupted")):
        return "yellow"
    return "green" if text.startswith("made") else ""
