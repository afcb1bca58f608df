"""``lc init``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from lightcone.errors import SpecError
from lightcone.project.context import SPEC_FILE, find_root
from lightcone.scaffold.changes import Change, Kind, apply_changes
from lightcone.scaffold.hooks import with_hooks, without_hooks
from lightcone.scaffold.project import agents_changes, gitignore_change, observe_change, scaffold

__all__ = ["command"]


@click.command("init", short_help="Make a project, or equip the one that is there.")
@click.argument("directory", required=False, metavar="[DIR]", type=click.Path(file_okay=False))
@click.option(
    "--hooks/--no-hooks",
    default=True,
    help="Have agents of Claude Code release the session when they leave (the default), or take "
    "that out again.",
)
@click.option("--agents", "for_agents", is_flag=True, help="Tell agents how to use lc: AGENTS.md.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(directory: str | None, hooks: bool, for_agents: bool, as_json: bool) -> None:
    """Make a small project that runs as it is, or equip the one that is there.

    DIR is the project's directory; without it, the project that the working directory is in, or
    else the working directory. A project that is there gets what it lacks, and what it has stays
    as it is. Doing it twice changes nothing more.
    """
    root = _root(directory)
    new = not (root / SPEC_FILE).is_file()
    changes = [gitignore_change(root), with_hooks(root) if hooks else without_hooks(root)]
    if for_agents:
        changes += agents_changes(root)
    if new:
        from lightcone.worker.observation import why_not_observed

        changes += [] if why_not_observed(None) else [observe_change(root)]
        changes += scaffold(root)
    changes = [change for change in changes if (change.before, change.after) != (None, None)]
    apply_changes(root, changes)
    steps = _next_steps(directory, new)
    if as_json:
        done = {kind.value: _paths(changes, kind) for kind in Kind}
        next_steps = [step for step, _ in steps]
        click.echo(json.dumps({"directory": str(root), **done, "next": next_steps}))
        return
    for change in changes:
        click.echo(f"{change.kind.value:<8} {change.path}")
    click.echo(f"{root} is {'a project' if new else 'equipped'}; next:")
    for step, why in steps:
        click.echo(f"  {step:<24} {why}".rstrip())


def _root(directory: str | None) -> Path:
    try:
        if directory is not None:
            return Path(directory).resolve()
        start = Path.cwd()
    except FileNotFoundError as error:
        raise SpecError(
            "The working directory no longer exists: go to the project's directory."
        ) from error
    try:
        return find_root(start)
    except SpecError:
        return start


def _paths(changes: list[Change], kind: Kind) -> list[str]:
    return sorted(change.path for change in changes if change.kind is kind)


def _next_steps(directory: str | None, new: bool) -> list[tuple[str, str]]:
    """The next commands for the user, each with its purpose."""
    steps = [("lc run", "make every output"), ("lc status", "what there is, and why not")]
    if new:
        steps.append(("lc log mean/report", "what a recipe printed"))
    if directory is not None:
        steps.insert(0, (f"cd {shlex.quote(directory)}", ""))
    return steps
