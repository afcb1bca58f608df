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
from lightcone.spec.outputs import load_outputs
from lightcone.state.claims import holder, is_interrupted
from lightcone.state.plan import Assessment, State, plan

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
        # Of tens of thousands, relative paths are made only where somebody reads them.
        path = os.path.relpath(output.place, context.root) if as_json else ""
        rows.append((output.id, output.universe, state, why, path))
    if as_json:
        keys = ("id", "universe", "state", "why", "path")
        shown = [dict(zip(keys, row, strict=True)) for row in rows]
        print(json.dumps({"outputs": shown, "warnings": warnings}))
    else:
        _show(rows)
    accepted = {State.OK, State.UNCONFIRMED} if allow_unconfirmed else {State.OK}
    return int(check and any(row[2] not in accepted for row in rows))


def current_state(assessment: Assessment) -> tuple[State, str]:
    """The state, with a recipe that is running or was interrupted."""
    claimant = holder(assessment.output)
    if claimant is not None:
        return State.RUNNING, f"by {claimant.by}"
    if is_interrupted(assessment.output):
        return State.INTERRUPTED, "the next 'lc run' puts back what was there and makes it"
    return assessment.state, assessment.why


def _show(rows: list[tuple[str, str, State, str, str]]) -> None:
    if not rows:
        click.echo("No output has a recipe.")
        return
    colour = sys.stdout.isatty()
    width = max(len(f"{universe}/{name}") for name, universe, *_ in rows)
    lines = []
    for name, universe, state, why, _ in rows:
        word = f"{state.value:<11}"
        word = click.style(word, fg=_COLOURS[state]) if colour else word
        lines.append(f"{word} {f'{universe}/{name}':<{width}}  {why}".rstrip())
    click.echo("\n".join(lines))
    ok_count = sum(row[2] is State.OK for row in rows)
    unconfirmed = sum(row[2] is State.UNCONFIRMED for row in rows)
    by_record = f", {unconfirmed} unconfirmed" if unconfirmed else ""
    todo = "" if ok_count + unconfirmed == len(rows) else "; run 'lc run' to make the rest"
    click.echo(f"{ok_count} of {len(rows)} ok{by_record}{todo}")
