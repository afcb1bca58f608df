"""``lc verify``."""

from __future__ import annotations

import json

import click

from lightcone.cli.completion import only_universe
from lightcone.project.context import current_context
from lightcone.spec.outputs import load_outputs
from lightcone.state.verify import Trouble, verify

__all__ = ["command"]


@click.command("verify", short_help="Recompute the recorded hashes of every result.")
@only_universe
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(universe: str | None, as_json: bool) -> int:
    """Read every result again and compare it with its record.

    Exits with 1 if anything differs. Prints tampered (other bytes than were made), missing (a
    record without its result), broken chain (made from another input than is there now), damaged
    record, or newer record (upgrade lc).
    """
    context = current_context()
    verified, findings = verify(load_outputs(context.root, context.settings, universe))
    if as_json:
        rows = [
            {
                "id": finding.output.id,
                "universe": finding.output.universe,
                "trouble": finding.trouble.value,
                "what": finding.description,
            }
            for finding in findings
        ]
        click.echo(json.dumps({"verified": verified, "findings": rows}))
        return int(bool(findings))
    for finding in findings:
        click.echo(f"{finding.output.name}: {finding.trouble.value}: {finding.description}")
    can_remake = any(finding.trouble is not Trouble.NEWER for finding in findings)
    todo = "; 'lc run' makes them again" if can_remake else ""
    click.echo(f"{_count(verified, 'result')} verified, {_count(len(findings), 'finding')}{todo}")
    return int(bool(findings))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
