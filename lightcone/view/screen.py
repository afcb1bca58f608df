"""The live screen of a session."""

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

_SILENT_AFTER = 5.0
_TICK = 1.0
_TAIL_BYTES = 1 << 18


def show(
    where: Context | Path, *, interactive: bool, should_continue: Callable[[], bool] = lambda: True
) -> str | None:
    """Show the session on this terminal until the user leaves it.

    Args:
        where: the session's context, or its control socket.
        interactive: whether keys do more than leave.
        should_continue: called about every second; False leaves the screen.

    Returns:
        The reason why the session ended; None where the user left.

    Raises:
        OSError: where no session answers.
        SessionError: where the session cannot be watched.
    """
    with watch_session(where) as snapshots, _wakeup_pipe() as (wakeup, wake):
        screen = _Screen(where, Choice() if interactive else None)
        threading.Thread(target=screen.listen, args=(snapshots, wake), daemon=True).start()
        while screen.snapshot is None and screen.ended is None:
            select.select([wakeup], [], [])
            os.read(wakeup, 1024)
        with Keyboard(0).open() as keyboard, screen.live:
            while screen.ended is None and should_continue():
                screen.paint()
                ready, _, _ = select.select([wakeup, keyboard.terminal], [], [], _TICK)
                if wakeup in ready:
                    os.read(wakeup, 1024)
                with contextlib.suppress(EOFError):
                    if keyboard.terminal not in ready or screen.press(keyboard.read()):
                        continue
                return None
    return screen.ended


@contextlib.contextmanager
def _wakeup_pipe() -> Iterator[tuple[int, Callable[[], None]]]:
    """Yield a descriptor, and a function that makes it readable, as a resize does.

    SIGTERM leaves, as everything else does, with the terminal as it was.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def wake() -> None:
        with contextlib.suppress(OSError):  # full: a wake-up is pending; closed: the screen is gone
            os.write(writer, b"\0")

    def leave(signum: int, frame: object) -> None:
        sys.exit(128 + signum)

    try:
        with signal_handlers({signal.SIGWINCH: lambda *_: wake(), signal.SIGTERM: leave}):
            yield reader, wake
    finally:
        os.close(reader)


class _Screen:
    """The state of the screen: the last snapshot, and the choice."""

    def __init__(self, where: Context | Path, choice: Choice | None) -> None:
        self.snapshot: dict[str, Any] | None = None
        self.ended: str | None = None
        self._where = where
        self._choice = choice
        self._last_snapshot = time.monotonic()
        self._console = Console(highlight=False)
        self.live = Live(
            Text(), console=self._console, screen=True, auto_refresh=False, redirect_stderr=False
        )

    def listen(self, snapshots: Iterator[dict[str, Any]], wake: Callable[[], None]) -> None:
        """Receive snapshots until the session has ended."""
        reason = ""
        with contextlib.suppress(OSError):
            for snapshot in snapshots:
                if "ended" in snapshot:
                    reason = str(snapshot["ended"])
                    break
                self._last_snapshot = time.monotonic()
                self.snapshot = snapshot
                wake()
        self.ended = reason
        wake()

    def paint(self) -> None:
        """Draw the current state."""
        # Read each time, because COLUMNS and LINES may be those of another terminal.
        self._console.size = ConsoleDimensions(*os.get_terminal_size(1))
        width, height = self._console.size
        choice = self._choice
        if choice is not None and choice.mode is Mode.LOG and choice.entry is not None:
            lines = draw_log(choice.entry, _last_lines(choice.entry), width, height, choice.scroll)
        else:
            assert self.snapshot is not None
            silent = time.monotonic() - self._last_snapshot
            lines = draw(
                self.snapshot,
                width,
                height,
                choice,
                silent_seconds=silent if silent > _SILENT_AFTER else 0.0,
                plain_bars=self._console.options.ascii_only,
            )
        self.live.update(Text("\n").join(lines), refresh=True)

    def press(self, keys: list[str]) -> bool:
        """Handle keys; False where one of them leaves the screen."""
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
            cancelled = ask_session(self._where, "cancel", run=entry["run_id"]).get("cancelled")
        except OSError:
            return "the session does not answer: try again"
        return (
            f"{entry['run']} is asked to end" if cancelled else f"{entry['run']} has ended already"
        )


def _last_lines(entry: dict[str, Any]) -> list[str]:
    """The end of an entry's log, or why it cannot be read."""
    try:
        with open(entry["log"], "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _TAIL_BYTES, 0))
            return file.read().decode(errors="replace").splitlines()
    except OSError as error:
        return [f"The log cannot be read: {error.strerror}."]


def snapshot(where: Context | Path) -> dict[str, Any]:
    """Take one snapshot of the session.

    Raises:
        SessionError: where it ends meanwhile, or cannot be watched.
    """
    try:
        with watch_session(where) as snapshots:
            for message in snapshots:
                if "ended" not in message:
                    return message
    except OSError:
        pass
    raise SessionError(
        "The session ended as it was about to be looked at: see 'lc session status'."
    )
