"""Temporary signal handlers, and the signals that request termination."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

__all__ = ["TERMINATION_SIGNALS", "signal_handlers", "termination_callback"]

TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals by which a terminal, its hangup or a supervisor ends a process."""


@contextlib.contextmanager
def signal_handlers(
    handlers: Mapping[int, Callable[[int, FrameType | None], object]],
) -> Iterator[None]:
    """Install signal handlers while the context is open; main thread only.

    One that was ignored when this program began stays so: ``nohup`` asks for that, and so does a
    shell, of SIGINT, for what a script runs in the background.
    """
    former_handlers: dict[int, object] = {}
    try:
        for signum, handler in handlers.items():
            if signal.getsignal(signum) is not signal.SIG_IGN:
                former_handlers[signum] = signal.signal(signum, handler)
        yield
    finally:
        for signum, former_handler in former_handlers.items():
            signal.signal(signum, former_handler)  # type: ignore[arg-type]


@contextlib.contextmanager
def termination_callback(callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback``, in a thread, for each termination signal.

    A handler alone is run when the main thread goes on. One that has just begun to wait for an
    event, or another thread that got the signal, would leave it unheard until there is an event.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] in TERMINATION_SIGNALS:
                    callback()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    former_descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        with signal_handlers(dict.fromkeys(TERMINATION_SIGNALS, lambda *_: None)):
            yield
    finally:
        signal.set_wakeup_fd(former_descriptor)
        os.close(writer)
        thread.join()
