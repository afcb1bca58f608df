"""``lc status``."""

from __future__ import annotations

import json
import os
import sys

import click

from lightcone.cli.completion import only_universe
from lightcone.cli.streams import warn
from lightcone.errors import UsageError
from lightcone.project.context import current_context
from lightcone.project.settings import Settings
from lightcone.spec.output import Output
from lightcone.spec.outputs import load_outputs
from lightcone.state.claims import holder, is_interrupted, unfinished_work
from lightcone.state.partial import (
    PartialWork,
    describe_partial,
    describe_resume,
    find_partial,
    has_partial,
)
from lightcone.state.plan import Assessment, State, plan
from lightcone.system.units import format_bytes

__all__ = ["command", "current_state"]

_COLOURS = {
    State.OK: "green",
    State.UNCONFIRMED: "blue",
    State.STALE: "yellow",
    State.MISSING: "yellow",
    State.RUNNING: "cyan",
    State.FAILED: "red",
    State.INTERRUPTED: "magenta",
    State.NEWER: "red",
}


@click.command("status", short_help="Show the state of every output, and why.")
@only_universe
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option("--check", is_flag=True, help="Exit with 1 unless every output is ok.")
@click.option(
    "--allow-unconfirmed",
    is_flag=True,
    help="With --check, take outputs for ok that are good by their record.",
)
def command(universe: str | None, as_json: bool, check: bool, allow_unconfirmed: bool) -> int:
    """Show every output in every universe: ok, stale, missing, running, failed or interrupted;
    unconfirmed, which is good by its record, of inputs that are not here; or newer, which is made
    by a newer lc and left alone. Warns on standard error about parts of the spec that are ignored.

    Changes nothing and needs no session.
    """
    if allow_unconfirmed and not check:
        raise UsageError("--allow-unconfirmed is for --check: add that, or leave it out.")
    context = current_context()
    warnings: list[str] = []
    outputs = load_outputs(context.root, context.settings, universe, warnings)
    warn(warnings)
    assessed = plan(outputs, hashes=context.hashes)
    rows = []
    for assessment in assessed.values():
        output = assessment.output
        state, why = current_state(assessment)
        work = _partial_work(assessment, state)
        # Of tens of thousands, relative paths are made only where somebody reads them.
        path = os.path.relpath(output.place, context.root) if as_json else ""
        if work and not as_json:
            partial = describe_partial(work, _resume(output, state, context.settings))
            why = f"{why}; {partial}" if why and partial else why or partial
        rows.append((output.id, output.universe, state, why, path, work))
    if as_json:
        print(json.dumps({"outputs": [_row(*row) for row in rows], "warnings": warnings}))
    else:
        _show(rows)
    accepted = {State.OK, State.UNCONFIRMED} if allow_unconfirmed else {State.OK}
    return int(check and any(row[2] not in accepted for row in rows))


def _row(
    name: str, universe: str, state: State, why: str, path: str, work: list[PartialWork]
) -> dict[str, object]:
    row = {"id": name, "universe": universe, "state": state, "why": why, "path": path}
    size = sum(copy.size for copy in work)
    return {**row, "partial": size, "resumable": bool(work) and not work[0].obstacle}


def current_state(assessment: Assessment) -> tuple[State, str]:
    """The state, with a recipe that is running or was interrupted."""
    claimant = holder(assessment.output)
    if claimant is not None:
        return State.RUNNING, f"by {claimant.by}"
    if is_interrupted(assessment.output):
        why = "the next 'lc run' puts back what was there and makes it"
        size = unfinished_work(assessment.output)
        return (
            State.INTERRUPTED,
            f"{why}; it keeps {format_bytes(size)} unfinished" if size else why,
        )
    return assessment.state, assessment.why


def _partial_work(assessment: Assessment, state: State) -> list[PartialWork]:
    """Return the partial work of an output, but for what its present maker has in hand."""
    if state is State.RUNNING or not has_partial(assessment.output):
        return []
    provenance = assessment.provenance
    return find_partial(assessment.output, None if provenance is None else provenance.identity)


def _resume(output: Output, state: State, settings: Settings) -> str:
    """Return what would go on from partial work."""
    by_rule = settings.for_output(output.universe, output.id).resume
    if state is State.OK:
        return "'lc run -f'" if by_rule else "'lc run -f --resume'"
    return describe_resume(by_rule=by_rule)


def _show(rows: list[tuple[str, str, State, str, str, list[PartialWork]]]) -> None:
    if not rows:
        click.echo("No output has a recipe.")
        return
    colour = sys.stdout.isatty()
    width = max(len(f"{universe}/{name}") for name, universe, *_ in rows)
    lines = []
    for name, universe, state, why, *_ in rows:
        word = f"{state.value:<11}"
        word = click.style(word, fg=_COLOURS[state]) if colour else word
        lines.append(f"{word} {f'{universe}/{name}':<{width}}  {why}".rstrip())
    click.echo("\n".join(lines))
    ok_count = sum(row[2] is State.OK for row in rows)
    unconfirmed = sum(row[2] is State.UNCONFIRMED for row in rows)
    by_record = f", {unconfirmed} unconfirmed" if unconfirmed else ""
    todo = "" if ok_count + unconfirmed == len(rows) else "; run 'lc run' to make the rest"
    click.echo(f"{ok_count} of {len(rows)} ok{by_record}{todo}")
