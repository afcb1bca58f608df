"""``lc wait`` and ``lc cancel``: commands for detached runs."""

from __future__ import annotations

import click

from lightcone.cli.streams import notify
from lightcone.errors import SessionError, UsageError
from lightcone.project.context import current_context
from lightcone.run.detached import DetachedRun, find
from lightcone.system.units import parse_seconds

__all__ = ["cancel", "exit_code_of", "wait"]


@click.command("wait", short_help="Wait for a detached run, with its exit code.")
@click.argument("name", required=False)
@click.option("--timeout", help="Give up after this long, with exit code 1; for example 10m.")
def wait(name: str | None, timeout: str | None) -> int:
    """Wait until the detached run NAME has ended, and exit with its code.

    Without NAME it is the one that goes on, or else the last.
    """
    try:
        seconds = None if timeout is None else parse_seconds(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}.") from error
    run = find(current_context(), name)
    if not run.wait(seconds):
        notify(f"{run.name} goes on after {timeout}")
        return 1
    return exit_code_of(run)


def exit_code_of(run: DetachedRun) -> int:
    """The exit code of a run that has ended.

    Raises:
        SessionError: where it was killed.
    """
    code = run.exit_code
    if code is None:
        raise SessionError(
            f"The run {run.name} was killed: what it had made is kept, and 'lc run' goes on."
        )
    return code


@click.command("cancel", short_help="End a detached run.")
@click.argument("name", required=False)
def cancel(name: str | None) -> None:
    """Interrupt the detached run NAME as Ctrl-C does, and wait for its end.

    Its recipes are asked to end; when it is cancelled once more meanwhile, they are ended at once.
    Without NAME it is the one that goes on.
    """
    run = find(current_context(), name)
    if run.cancel():
        click.echo(f"{run.name}: ended")
    else:
        click.echo(f"{run.name}: had ended already")
