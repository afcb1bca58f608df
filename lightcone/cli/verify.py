"""``lc verify``."""

from __future__ import annotations

import json
from collections import Counter

import click

from lightcone.cli.completion import only_universe
from lightcone.cli.streams import notify
from lightcone.project.context import current_context
from lightcone.spec.outputs import load_outputs
from lightcone.state.verify import Trouble, record_findings, verify

__all__ = ["command", "next_steps"]

_NOT_REMADE = frozenset({Trouble.NEWER, Trouble.ABSENT})


@click.command("verify", short_help="Read every result and its sources again, and compare.")
@only_universe
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(universe: str | None, as_json: bool) -> int:
    """Read every result, input and script again, and compare them with the records.

    Exits with 1 if anything differs. Prints tampered (other bytes than were made), missing (a
    record without its result), no record (a result without a record), changed source or missing
    source (an input, a script or another file that counts), broken chain (made from another input
    than is there now), damaged record, or newer record (upgrade lc). 'lc status' and 'lc run' know
    of it afterwards.
    """
    context = current_context()
    outputs = load_outputs(context.root, context.settings, universe)
    others = []
    if universe is not None:
        keys = {output.key for output in outputs}
        declared = load_outputs(context.root, context.settings)
        others = [output for output in declared if output.key not in keys]
    verification = verify(outputs, others, context.hashes)
    verified, findings = verification.verified, verification.findings
    for failure in record_findings(verification, context.claims):
        notify(f"this finding could not be recorded for 'lc status' and 'lc run': {failure}")
    if as_json:
        rows = [
            {
                "id": finding.output.id,
                "universe": finding.output.universe,
                "trouble": finding.trouble.value,
                "what": finding.description,
                "files": finding.files,
            }
            for finding in findings
        ]
        kinds = Counter(finding.trouble.value for finding in findings)
        click.echo(json.dumps({"verified": verified, "kinds": kinds, "findings": rows}))
        return int(bool(findings))
    for finding in findings:
        click.echo(f"{finding.output.name}: {finding.trouble.value}: {finding.description}")
    todo = "".join(f"; {step}" for step in next_steps({each.trouble for each in findings}))
    click.echo(f"{_count(verified, 'result')} verified, {_count(len(findings), 'finding')}{todo}")
    return int(bool(findings))


def next_steps(troubles: set[Trouble]) -> list[str]:
    """Return what to do about findings of these kinds; 'lc run' cannot make every one good."""
    steps = []
    if Trouble.ABSENT in troubles:
        steps.append("put the missing sources back, or correct astra.yaml")
    if Trouble.NEWER in troubles:
        steps.append("upgrade lc")
    if troubles - _NOT_REMADE:
        which = "the others" if steps else "them"
        steps.append(f"'lc run' makes {which} again")
    return steps


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
