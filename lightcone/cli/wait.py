"""``lc wait``."""

from __future__ import annotations

import click

from lightcone.cli.say import say
from lightcone.context import here
from lightcone.errors import SessionError, UsageError
from lightcone.run.detached import DetachedRun, find
from lightcone.units import parse_seconds

__all__ = ["command", "ended"]


@click.command("wait", short_help="Wait for a detached run, with its exit code.")
@click.argument("name", required=False)
@click.option("--timeout", help="Give up after this long, with exit code 1; for example 10m.")
def command(name: str | None, timeout: str | None) -> int:
    """Wait until the detached run NAME has ended, and leave with its exit code.

    Without NAME it is the one that goes on, or else the last.
    """
    try:
        seconds = None if timeout is None else parse_seconds(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}.") from error
    run = find(here(), name)
    if not run.wait(seconds):
        say(f"{run.name} goes on after {timeout}")
        return 1
    return ended(run)


def ended(run: DetachedRun) -> int:
    """The exit code that a run which has ended left with.

    Raises:
        SessionError: where it was killed.
    """
    code = run.exit_code
    if code is None:
        raise SessionError(
            f"The run {run.name} was killed: what it had made is kept, and 'lc run' goes on."
        )
    return code
