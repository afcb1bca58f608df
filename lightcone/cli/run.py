"""``lc run``."""

from __future__ import annotations

import contextlib
import math
import os
import sys

import click

from lightcone.analysis.adoption import adopt_all
from lightcone.analysis.claims import put_right
from lightcone.analysis.output import Key, Output
from lightcone.analysis.plan import State, plan
from lightcone.analysis.selection import named, select
from lightcone.analysis.spec import load_outputs
from lightcone.context import here
from lightcone.errors import INTERRUPTED, UsageError
from lightcone.run.environment import RECIPE_VARIABLE
from lightcone.run.report import JsonReporter, PlainReporter, Reporter, Verbosity

__all__ = ["command"]


@click.command("run", short_help="Bring the project's outputs up to date.")
@click.argument("outputs", nargs=-1, metavar="[OUTPUT]...")
@click.option("-u", "--universe", help="Only this universe; all of them without it.")
@click.option(
    "-n", "--dry-run", is_flag=True, help="Say what would be made, and why; make nothing."
)
@click.option("-f", "--force", is_flag=True, help="Make the named outputs again (or all).")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="At most this many recipes at once.")
@click.option("--fail-fast", is_flag=True, help="Begin nothing more once a recipe has failed.")
@click.option("--resume", is_flag=True, help="Give recipes what they had written when interrupted.")
@click.option("-v", "--verbose", is_flag=True, help="Also say what is up to date, and why not.")
@click.option("-q", "--quiet", is_flag=True, help="Say no more than what failed, and the summary.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, the last a summary.")
def command(
    outputs: tuple[str, ...],
    universe: str | None,
    dry_run: bool,
    force: bool,
    jobs: int | None,
    fail_fast: bool,
    resume: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
) -> int:
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
    reporter = _reporter(as_json, Verbosity(verbose - quiet))
    context = here()
    declared = load_outputs(context.root, context.settings, universe)
    wanted = select(declared, outputs) if outputs else declared
    again = named(declared, outputs) if outputs else {output.key for output in wanted}
    forced = frozenset(again) if force else frozenset[Key]()
    if not dry_run:
        for output in wanted:
            # What is not writable is told of below, where it is in the way.
            with contextlib.suppress(OSError):
                put_right(output, context.claims)
    assessed = plan(wanted, forced, context.hashes)
    if not dry_run and adopt_all(assessed, context.claims, context.hashes):
        assessed = plan(wanted, forced, context.hashes)
    if dry_run or all(assessment.state is State.OK for assessment in assessed.values()):
        for output in wanted:
            why = assessed[output.key].why
            if why:
                reporter.would_make(output, why)
            else:
                reporter.up_to_date(output)
        reporter.finish()
        return 0
    unmade = [output for output in wanted if assessed[output.key].state is not State.OK]
    _check_writable(unmade)
    for output in unmade:
        reporter.planned(output, assessed[output.key].why)

    from lightcone.run.driver import Driver, Wishes
    from lightcone.session.client import join

    wishes = Wishes(jobs or math.inf, fail_fast, resume)
    finished = False
    with join(context, reporter.note) as connection:
        reporter.begin(len(wanted), connection.how)
        try:
            driver = Driver(context, wanted, assessed, forced, connection, reporter, wishes)
            finished = driver.run()
        finally:
            reporter.finish()
    if not finished:
        return INTERRUPTED
    return 1 if reporter.counts["failed"] else 0


def _reporter(as_json: bool, verbosity: Verbosity) -> Reporter:
    if as_json:
        return JsonReporter()
    if sys.stdout.isatty():
        from lightcone.run.live import LiveReporter

        return LiveReporter(verbosity)
    return PlainReporter(verbosity)


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
