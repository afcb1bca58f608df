"""``lc run``."""

from __future__ import annotations

import os
import sys

import click

from lightcone.analysis.output import Key, Output
from lightcone.analysis.plan import State, plan
from lightcone.analysis.selection import named, select
from lightcone.analysis.spec import load_outputs
from lightcone.context import Context, here
from lightcone.errors import SessionError, UsageError
from lightcone.run.environment import RECIPE_VARIABLE
from lightcone.run.report import JsonReporter, PlainReporter, Reporter

__all__ = ["command"]

_INTERRUPTED = 130


@click.command("run", short_help="Bring the project's outputs up to date.")
@click.argument("outputs", nargs=-1, metavar="[OUTPUT]...")
@click.option("-u", "--universe", help="Only this universe; all of them without it.")
@click.option("-f", "--force", is_flag=True, help="Make the named outputs again (or all).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, the last a summary.")
def command(outputs: tuple[str, ...], universe: str | None, force: bool, as_json: bool) -> int:
    """Bring the project's outputs up to date.

    Makes what is missing or stale among the OUTPUTs (default: all of them) and everything they
    need, each recipe a task on the session's cluster, which is started when there is none. An
    OUTPUT is written id, sub.id or universe/id.
    """
    recipe = os.environ.get(RECIPE_VARIABLE)
    if recipe:
        raise UsageError(
            f"'lc run' was called inside the recipe of {recipe}, which it might wait for: declare "
            "what it needs as inputs in astra.yaml instead."
        )
    context = here()
    declared = load_outputs(context.root, context.settings, universe)
    wanted = select(declared, outputs) if outputs else declared
    again = named(declared, outputs) if outputs else {output.key for output in wanted}
    forced = frozenset(again) if force else frozenset[Key]()
    reporter = _reporter(as_json)
    assessed = plan(wanted, forced)
    if all(assessed[output.key].state is State.OK for output in wanted) and not forced:
        for output in wanted:
            reporter.up_to_date(output)
        reporter.finish()
        return 0
    _check_writable([o for o in wanted if assessed[o.key].state is not State.OK])
    return _make(context, wanted, assessed, forced, reporter)


def _make(context, wanted, assessed, forced, reporter) -> int:  # type: ignore[no-untyped-def]
    from lightcone.run.driver import Driver
    from lightcone.session.client import join

    finished = False
    with join(context, reporter.note) as connection:
        reporter.begin(len(wanted), connection.how)
        try:
            driver = Driver(context, wanted, assessed, forced, connection, reporter)
            finished = driver.run()
        finally:
            reporter.finish()
    if not finished:
        return _INTERRUPTED
    return 1 if reporter.counts["failed"] else 0


def _reporter(as_json: bool) -> Reporter:
    if as_json:
        return JsonReporter()
    if sys.stdout.isatty():
        from lightcone.run.live import LiveReporter

        return LiveReporter()
    return PlainReporter()


def _check_writable(outputs: list[Output]) -> None:
    for directory in {output.state_dir.parent for output in outputs}:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise UsageError(
                f"The results directory {directory.parent} cannot be written ({error.strerror}): "
                "make it writable, and run again."
            ) from error
