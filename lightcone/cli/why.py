"""``lc why``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from lightcone.cli.completion import complete_outputs, complete_universes
from lightcone.cli.log import find_output
from lightcone.cli.status import current_state
from lightcone.project.context import current_context
from lightcone.spec.output import Input, Key, Output
from lightcone.spec.outputs import load_outputs
from lightcone.spec.selection import select
from lightcone.state.dependencies import SourceFiles
from lightcone.state.hash_cache import HashCache
from lightcone.state.imports import Found, Way
from lightcone.state.manifest import UNOBSERVED, Observed
from lightcone.state.plan import Assessment, State, plan

__all__ = ["command"]

_OBSERVED = Way("observed")


@click.command("why", short_help="Show what determines an output, and how it was found.")
@click.argument("output", shell_complete=complete_outputs)
@click.option(
    "-u",
    "--universe",
    help="The universe, where there are several.",
    shell_complete=complete_universes,
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(output: str, universe: str | None, as_json: bool) -> None:
    """Show the state of OUTPUT with every reason, everything that determines it, and what was
    not followed.

    Each file of the project comes with the way in which it was found: named in the command,
    imported by a script, observed, and so on. A change of a file that is not here goes unnoticed:
    declare it as an input. Changes nothing and needs no session.
    """
    context = current_context()
    outputs = load_outputs(context.root, context.settings, universe)
    chosen = find_output(outputs, output)
    assessed = plan(select(outputs, [chosen.name]), hashes=context.hashes)
    assessment = assessed[chosen.key]
    sources = SourceFiles(context.root, HashCache(context.hashes))
    if assessment.manifest is not None:
        sources.learn(assessment.manifest.provenance)
    table = _table(assessment, assessed, _counting(assessment, sources.found(chosen)))
    observed = _observed(assessment)
    table["listings"] = sorted(observed.listings)
    table["missing"] = sorted(observed.missing)
    table["undeclared"] = sorted(
        name for name in observed.files if not sources.scanner.is_source(name)
    )
    if as_json:
        print(json.dumps(table))
    else:
        click.echo("\n".join(_lines(table)))


def _counting(assessment: Assessment, found: Found) -> Found:
    """Return the files that count: those of the provenance, where there is one."""
    if assessment.provenance is not None:
        names = assessment.provenance.files
        files = {name: found.files.get(name, _OBSERVED) for name in names}
    else:
        products = () if assessment.manifest is None else assessment.manifest.products
        files = {name: way for name, way in found.files.items() if name not in products}
    return found._replace(files=dict.fromkeys(_observed(assessment).files, _OBSERVED) | files)


def _observed(assessment: Assessment) -> Observed:
    """Return what the recipe was observed to use, as it is now if that is known."""
    if assessment.provenance is not None:
        return assessment.provenance.observed
    manifest, output = assessment.manifest, assessment.output
    if manifest is None or manifest.provenance.command != output.command:
        return UNOBSERVED
    return manifest.provenance.observed


def _table(
    assessment: Assessment, assessed: Mapping[Key, Assessment], found: Found
) -> dict[str, Any]:
    output = assessment.output
    state, why = current_state(assessment)
    reasons = list(assessment.reasons) if state is assessment.state else []
    manifest = assessment.manifest
    return {
        "id": output.id,
        "universe": output.universe,
        "state": state.value,
        "reasons": reasons or ([why] if why else []),
        "path": os.path.relpath(output.place, output.root),
        "command": output.command,
        "container": output.container,
        "decisions": dict(output.decisions),
        "inputs": [_input(given, output, assessed) for given in output.inputs],
        "files": [
            {"path": name, "found": str(way), **way._asdict()}
            for name, way in sorted(found.files.items())
        ],
        "products": [] if manifest is None else list(manifest.products),
        "not_followed": list(found.not_followed),
    }


def _input(given: Input, output: Output, assessed: Mapping[Key, Assessment]) -> dict[str, Any]:
    producer = assessed.get((output.universe, given.producer or ""))
    return {
        "id": given.id,
        "text": given.text,
        "made_by": None if producer is None else producer.output.id,
        "state": None if producer is None else current_state(producer)[0].value,
    }


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    yield f"{table['universe']}/{table['id']} is {table['state']}"
    yield from (f"  {reason}" for reason in table["reasons"])
    yield "its command:"
    yield from (f"  {line}" for line in table["command"].split("\n"))
    rows = [("container", table["container"], "")] if table["container"] else []
    rows += [("decision", f"{name} = {option}", "") for name, option in table["decisions"].items()]
    for given in table["inputs"]:
        how = "" if given["made_by"] is None else f"made by {given['made_by']}, {given['state']}"
        rows.append(("input", f"{given['id']}: {given['text']}", how))
    undeclared = table["undeclared"]
    rows += [
        ("result" if each["path"] in undeclared else "file", each["path"], each["found"])
        for each in table["files"]
    ]
    rows += [("names in", name, str(_OBSERVED)) for name in table["listings"]]
    rows += [("not there", name, str(_OBSERVED)) for name in table["missing"]]
    if rows:
        yield "what determines it besides:"
        width = max(len(row[1]) for row in rows if row[2]) if any(row[2] for row in rows) else 0
        yield from (f"  {kind:<9}  {what:<{width}}  {how}".rstrip() for kind, what, how in rows)
    if table["products"]:
        yield "written by its recipe, so it does not count:"
        yield from (f"  {name}" for name in table["products"])
    if table["not_followed"]:
        yield "not followed:"
        yield from (f"  {each}" for each in table["not_followed"])
    if table["state"] != State.OK and table["state"] != State.RUNNING:
        yield "run 'lc run' to make it"
