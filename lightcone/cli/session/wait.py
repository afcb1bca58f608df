"""``lc session wait``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import click

from lightcone.cli.say import say
from lightcone.context import Context, here
from lightcone.errors import UsageError
from lightcone.session import control
from lightcone.session.liveness import Life, probe
from lightcone.units import parse_seconds

__all__ = ["command"]


@click.command("wait")
@click.option(
    "--for",
    "what",
    type=click.Choice(["ready", "idle", "end"]),
    default="ready",
    show_default=True,
    help="Until the session can be used, nobody uses it, or it has ended.",
)
@click.option("--timeout", help="Give up after this long, with exit code 1; for example 10m.")
def command(what: str, timeout: str | None) -> int:
    """Wait until the session is ready, idle or ended."""
    try:
        seconds = None if timeout is None else parse_seconds(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}.") from error
    context = here()
    waits: dict[str, Callable[[Context, float | None], bool]] = {
        "ready": _wait_ready,
        "idle": _wait_idle,
        "end": _wait_end,
    }
    if waits[what](context, seconds):
        return 0
    say(f"{context.name}: not {'ended' if what == 'end' else what} within {timeout}")
    return 1


def _wait_ready(context: Context, seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        try:
            control.ask(context, "ready", None if left is None else max(left, 0.1))
        except OSError:
            # Nobody can be told to say when a session that does not exist yet begins.
            if left is not None and left <= 0:
                return False
            time.sleep(0.1)
        else:
            return True


def _wait_idle(context: Context, seconds: float | None) -> bool:
    try:
        limit = None if seconds is None else max(seconds, 0.1)
        control.ask(context, "idle", limit)
    except TimeoutError:
        return False
    except OSError:
        pass  # no session is as idle as can be
    return True


def _wait_end(context: Context, seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        found = probe(context)
        if found.life is Life.DEAD and not found.remains:
            return True
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        if found.life is Life.ALIVE:
            with (
                contextlib.suppress(OSError),
                control.hold(context) as hold,
            ):
                hold.wait_for_end(left)
        else:
            time.sleep(0.1)
