"""``lc run``."""

from __future__ import annotations

import contextlib
import math
import os
import sys

import click

from lightcone.cli.completion import complete_outputs, only_universe
from lightcone.cli.streams import notify, warn
from lightcone.errors import INTERRUPTED, OUT_OF_TIME, UsageError
from lightcone.project.context import Context, current_context, external_address
from lightcone.project.sites import current_site
from lightcone.project.variables import ADDRESS_VARIABLE, RECIPE_VARIABLE
from lightcone.run.report import JsonReporter, PlainReporter, Reporter, Verbosity
from lightcone.spec.output import Key, Output
from lightcone.spec.outputs import load_outputs
from lightcone.spec.selection import named, needed, select
from lightcone.state.adopt import adopt_all
from lightcone.state.claims import recover_output
from lightcone.state.plan import State, good_dependents, plan, unmakeable

__all__ = ["command"]


@click.command("run", short_help="Bring the project's outputs up to date.")
@click.argument("outputs", nargs=-1, metavar="[OUTPUT]...", shell_complete=complete_outputs)
@only_universe
@click.option(
    "-n", "--dry-run", is_flag=True, help="Say what would be made, and why; make nothing."
)
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Make the named outputs again (or all); then what needs them, if they differ.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="At most this many recipes at once.")
@click.option("--fail-fast", is_flag=True, help="Begin nothing more once a recipe has failed.")
@click.option("--resume", is_flag=True, help="Give recipes what they had written when interrupted.")
@click.option("--observe", is_flag=True, help="Watch which files the recipes use; see the docs.")
@click.option("--detach", is_flag=True, help="Go on without this terminal; see --attach.")
@click.option("--name", help="What to call a detached run; by default a number.")
@click.option(
    "--attach",
    metavar="[NAME]",
    is_flag=False,
    flag_value="",
    help="Show a detached run until it ends, with its exit code; Ctrl-C leaves it alone.",
)
@click.option(
    "--allocate",
    metavar="OPTIONS",
    help="Get an allocation with these options of salloc first, and run in it.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also say what is up to date, and why not.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Say no more than what failed, warnings, and the summary."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, the last a summary.")
def command(
    outputs: tuple[str, ...],
    universe: str | None,
    dry_run: bool,
    force: bool,
    jobs: int | None,
    fail_fast: bool,
    resume: bool,
    observe: bool,
    detach: bool,
    name: str | None,
    attach: str | None,
    allocate: str | None,
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
    context = current_context()
    if attach is not None:
        return _attach(context, attach or None)
    if name is not None and not detach:
        raise UsageError("--name is for a run with --detach: add that, or leave it out.")
    reporter = _reporter(as_json, Verbosity(verbose - quiet))
    warnings: list[str] = []
    declared = load_outputs(context.root, context.settings, universe, warnings)
    warn(warnings)
    for text in warnings:
        reporter.warning(text)
    wanted = select(declared, outputs) if outputs else declared
    named_keys = named(declared, outputs) if outputs else {output.key for output in wanted}
    forced = frozenset(named_keys) if force else frozenset[Key]()
    if forced and outputs:
        wanted = needed(declared, forced | good_dependents(declared, forced, context.hashes))
    if not dry_run:
        claims = context.claims
        for output in wanted:
            # _check_writable reports below what is not writable.
            with contextlib.suppress(OSError):
                for remark in recover_output(output, claims):
                    reporter.note(f"{output.name}: {remark}")
    assessed = plan(wanted, forced, context.hashes)
    if not dry_run and adopt_all(assessed, context.claims, context.hashes):
        assessed = plan(wanted, forced, context.hashes)
    out_of_reach = unmakeable(assessed)
    if dry_run or all(
        assessment.is_good or key in out_of_reach for key, assessment in assessed.items()
    ):
        for output in wanted:
            why, by = assessed[output.key].why, out_of_reach.get(output.key)
            if by is output:
                reporter.failed(output, {"reason": why})
            elif by is not None:
                reporter.blocked(output, by)
            elif assessed[output.key].state is State.UNCONFIRMED:
                reporter.unconfirmed(output, why)
            elif why:
                reporter.would_make(output, why)
            else:
                reporter.up_to_date(output)
        reporter.finish()
        return 1 if reporter.counts["failed"] else 0
    unmade = [output for output in wanted if not assessed[output.key].is_good]
    _check_writable(unmade)
    for output in unmade:
        reporter.planned(output, assessed[output.key].why)

    if detach:
        arguments = [*outputs, *(["-u", universe] if universe else []), *(["-f"] if force else [])]
        arguments += [f"-j{jobs}"] if jobs else []
        arguments += ["--fail-fast"] if fail_fast else []
        arguments += ["--resume"] if resume else []
        arguments += ["--observe"] if observe else []
        arguments += ["-v"] * verbose + ["-q"] * quiet + ["--json"] * as_json
        return _detach(context, name, arguments, reporter)
    from lightcone.session.connect import join_cluster
    from lightcone.wire.requests import Outcome, RunOptions

    if allocate is not None:
        from lightcone.session.request import allocate as ask_for_allocation

        try:
            context = ask_for_allocation(context, allocate, reporter.note)
        except KeyboardInterrupt:
            return INTERRUPTED
    elif external_address() is None:
        _check_login_node(context, unmade)
    options = RunOptions(jobs or math.inf, fail_fast, resume, observe)
    outcome = Outcome.INTERRUPTED
    with join_cluster(context, reporter.note, _import_driver) as connection:
        from lightcone.run.driver import Driver

        reporter.begin(len(wanted), connection.origin)
        try:
            driver = Driver(context, wanted, assessed, forced, connection, reporter, options)
            outcome = driver.run()
        finally:
            reporter.finish()
    if outcome is Outcome.INTERRUPTED:
        return INTERRUPTED
    if reporter.counts["failed"]:
        return 1
    return OUT_OF_TIME if outcome is Outcome.OUT_OF_TIME else 0


def _detach(context: Context, name: str | None, arguments: list[str], reporter: Reporter) -> int:
    from lightcone.run.detached import start
    from lightcone.session.start import ensure_session

    if external_address() is not None:
        raise UsageError(
            f"--detach needs a session of lc's own: unset {ADDRESS_VARIABLE}, or leave it out."
        )
    ensure_session(context, reporter.note)
    run = start(context, name, arguments)
    reporter.note(
        f"runs on as {run.name}: 'lc run --attach {run.name}' shows it, 'lc wait {run.name}' waits "
        f"for it, 'lc cancel {run.name}' ends it"
    )
    return 0


def _attach(context: Context, name: str | None) -> int:
    from lightcone.cli.detached import exit_code_of
    from lightcone.run.detached import find

    run = find(context, name)
    try:
        run.follow(sys.stdout.buffer)
    except KeyboardInterrupt:
        notify(f"{run.name} runs on; 'lc cancel {run.name}' ends it")
        return INTERRUPTED
    return exit_code_of(run)


def _import_driver() -> None:
    import lightcone.run.driver  # noqa: F401


def _reporter(as_json: bool, verbosity: Verbosity) -> Reporter:
    if as_json:
        return JsonReporter()
    if sys.stdout.isatty():
        from lightcone.run.live import LiveReporter

        return LiveReporter(verbosity)
    return PlainReporter(verbosity)


def _check_login_node(context: Context, outputs: list[Output]) -> None:
    """Refuse a heavy run on a login node."""
    site = current_site()
    if site is None or site.login is None or context.job is not None:
        return
    limits = site.login
    for output in outputs:
        requested = output.resources
        if (
            requested.cpus > limits.cpus
            or requested.memory > limits.memory
            or requested.gpus
            or (requested.time_limit or 0.0) > limits.seconds
        ):
            raise UsageError(
                f"This is a login node of {site.name}, and {output.name} asks for more than is fit "
                f"for one: get nodes with 'salloc', or run \"lc run --allocate '-N 1 -t 1:00:00'\" "
                "with what your site asks for."
            )


def _check_writable(outputs: list[Output]) -> None:
    for directory in {output.state_dir.parent for output in outputs}:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            for place in (directory, *directory.parents):
                if place.is_symlink() and not place.exists():
                    raise UsageError(
                        f"{place} is a link to {os.readlink(place)}, which is not there: make that "
                        "directory, or mount its disk, and run again."
                    ) from error
            raise UsageError(
                f"The results directory {directory.parent} cannot be written ({error.strerror}): "
                "make it writable, and run again."
            ) from error
