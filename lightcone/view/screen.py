"""The screen on which a session is looked at, live."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.system.signals import signal_handlers
from lightcone.view.choice import Action, Choice, Mode, press, rows
from lightcone.view.keys import Keyboard
from lightcone.view.picture import draw, draw_log
from lightcone.wire.control_client import ask_session, watch_session

__all__ = ["show", "snapshot"]

_SILENT = 5.0
_TICK = 1.0
_TAIL = 1 << 18


def show(
    where: Context | Path, *, choosing: bool, stay: Callable[[], bool] = lambda: True
) -> str | None:
    """Show the session on this terminal until one leaves it.

    Args:
        where: the session's context, or its control socket.
        choosing: whether keys do more than leave.
        stay: is asked every second or so whether to go on.

    Returns:
        Why the session ended, where that is why the screen did.

    Raises:
        OSError: where nobody answers.
        SessionError: where the session is one that cannot be looked at.
    """
    with watch_session(where) as snapshots, _bell() as (bell, ring):
        screen = _Screen(where, Choice() if choosing else None)
        threading.Thread(target=screen.listen, args=(snapshots, ring), daemon=True).start()
        while screen.snapshot is None and screen.ended is None:
            select.select([bell], [], [])
            os.read(bell, 1024)
        with Keyboard(0).open() as keyboard, screen.live:
            while screen.ended is None and stay():
                screen.paint()
                ready, _, _ = select.select([bell, keyboard.terminal], [], [], _TICK)
                if bell in ready:
                    os.read(bell, 1024)
                with contextlib.suppress(EOFError):
                    if keyboard.terminal not in ready or screen.press(keyboard.read()):
                        continue
                return None
    return screen.ended


@contextlib.contextmanager
def _bell() -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor that becomes readable when the other is called, or the terminal's size changes.

    SIGTERM leaves, as everything else does, with the terminal as it was.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def ring() -> None:
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody is there
            os.write(writer, b"\0")

    def leave(signum: int, frame: object) -> None:
        sys.exit(128 + signum)

    try:
        with signal_handlers({signal.SIGWINCH: lambda *_: ring(), signal.SIGTERM: leave}):
            yield reader, ring
    finally:
        os.close(reader)


class _Screen:
    """What is on the screen: the session as it was last heard of, and what has been chosen."""

    def __init__(self, where: Context | Path, choice: Choice | None) -> None:
        self.snapshot: dict[str, Any] | None = None
        self.ended: str | None = None
        self._where = where
        self._choice = choice
        self._heard = time.monotonic()
        self._console = Console(highlight=False)
        self.live = Live(
            Text(), console=self._console, screen=True, auto_refresh=False, redirect_stderr=False
        )

    def listen(self, snapshots: Iterator[dict[str, Any]], ring: Callable[[], None]) -> None:
        """Take in what there is to see, until the session has ended."""
        reason = ""
        with contextlib.suppress(OSError):
            for snapshot in snapshots:
                if "ended" in snapshot:
                    reason = str(snapshot["ended"])
                    break
                self._heard = time.monotonic()
                self.snapshot = snapshot
                ring()
        self.ended = reason
        ring()

    def paint(self) -> None:
        """Show it as it is now."""
        # Asked for each time, as the environment may have that of the terminal it was begun in.
        self._console.size = ConsoleDimensions(*os.get_terminal_size(1))
        width, height = self._console.size
        choice = self._choice
        if choice is not None and choice.mode is Mode.LOG and choice.entry is not None:
            lines = draw_log(choice.entry, _last_lines(choice.entry), width, height, choice.back)
        else:
            assert self.snapshot is not None
            silent = time.monotonic() - self._heard
            lines = draw(
                self.snapshot,
                width,
                height,
                choice,
                silent=silent if silent > _SILENT else 0.0,
                plain_bars=self._console.options.ascii_only,
            )
        self.live.update(Text("\n").join(lines), refresh=True)

    def press(self, keys: list[str]) -> bool:
        """Do what keys ask for; False where that is to leave."""
        for key in keys:
            if self._choice is None:
                if key in ("q", "ctrl-c"):
                    return False
                continue
            assert self.snapshot is not None
            shown = rows(self.snapshot, self._choice)
            self._choice, action = press(self._choice, key, shown)
            if action is Action.LEAVE:
                return False
            if action is Action.CANCEL:
                self._choice = replace(self._choice, note=self._cancel(self._choice.entry or {}))
        return True

    def _cancel(self, entry: dict[str, Any]) -> str:
        try:
            done = ask_session(self._where, "cancel", run=entry["run_id"]).get("cancelled")
        except OSError:
            return "the session does not answer: try again"
        return f"{entry['run']} is asked to end" if done else f"{entry['run']} has ended already"


def _last_lines(entry: dict[str, Any]) -> list[str]:
    """The end of an entry's log, or why it cannot be read."""
    try:
        with open(entry["log"], "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL, 0))
            return file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return [f"The log cannot be read: {error.strerror}."]


def snapshot(where: Context | Path) -> dict[str, Any]:
    """One look at the session.

    Raises:
        SessionError: where it ends meanwhile, or is one that cannot be looked at.
    """
    try:
        with watch_session(where) as snapshots:
            for found in snapshots:
                if "ended" not in found:
                    return found
    except OSError:
        pass
    raise SessionError(
        "The session ended as it was about to be looked at: see 'lc session status'."
    )
