"""Signals to this process: handlers for a while, and those that ask it to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

__all__ = ["TERMINATION_SIGNALS", "signal_handlers", "termination_callback"]

TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal, its end and a supervisor send to a process that is to end."""


@contextlib.contextmanager
def signal_handlers(
    handlers: Mapping[int, Callable[[int, FrameType | None], object]],
) -> Iterator[None]:
    """Context in which signals, by number, have these handlers; for the main thread.

    One that was ignored when this program began stays so: ``nohup`` asks for that, and so does a
    shell, of SIGINT, for what a script runs in the background.
    """
    before: dict[int, object] = {}
    try:
        for signum, handler in handlers.items():
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, handler)
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)  # type: ignore[arg-type]


@contextlib.contextmanager
def termination_callback(tell: Callable[[], None]) -> Iterator[None]:
    """Context in which ``tell`` is called, in a thread, for each signal that asks to end.

    A handler alone is run when the main thread goes on. One that has just begun to wait for an
    event, or another thread that got the signal, would leave it unheard until there is an event.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] in TERMINATION_SIGNALS:
                    tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    wakened = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        with signal_handlers(dict.fromkeys(TERMINATION_SIGNALS, lambda *_: None)):
            yield
    finally:
        signal.set_wakeup_fd(wakened)
        os.close(writer)
        thread.join()
