"""``lc session status``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from lightcone.context import ADDRESS_VARIABLE, Context, external_address, here
from lightcone.session.liveness import Life, Liveness, probe, recorded_end
from lightcone.units import format_bytes, format_moment, format_seconds

__all__ = ["alive", "command", "counted"]

_KEYS = (
    "state",
    "name",
    "key",
    "kind",
    "host",
    "address",
    "started",
    "idle_timeout_s",
    "leases",
    "workers",
    "attach",
)


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(as_json: bool) -> None:
    """Say whether the session is alive, and what it has."""
    address = external_address()
    if address is not None:
        from lightcone.session.external import describe

        told = describe(address)
        if as_json:
            click.echo(json.dumps({key: told.get(key) for key in _KEYS}))
        else:
            click.echo(f"{told['name']}: {told['state']}, named by {ADDRESS_VARIABLE}")
            _show_workers(told["workers"])
        return
    context = here()
    found = probe(context)
    if as_json:
        click.echo(json.dumps(_describe(context, found)))
        return
    click.echo(f"{context.name}: {found.life.value}{f', {found.why}' if found.why else ''}")
    if found.life is Life.ALIVE:
        _show(found.description)
    elif (ended := recorded_end(context)) is not None:
        click.echo(f"  the last one ended at {format_moment(ended['at'])}: {ended['reason']}")


def _describe(context: Context, found: Liveness) -> dict[str, Any]:
    if found.life is Life.ALIVE:
        return alive(found.description)
    known = {
        "state": found.life.value,
        "name": context.name,
        "key": context.key,
        "kind": context.kind,
        "idle_timeout_s": context.settings.idle_timeout,
        "workers": [],
        "why": found.why,
        "ended": recorded_end(context),
    }
    return {key: known.get(key) for key in (*_KEYS, "why", "ended")}


def alive(description: dict[str, Any]) -> dict[str, Any]:
    """What ``--json`` shows of a session that describes itself so."""
    from lightcone.session.tmux import attach_command

    path = Path(description["runtime_dir"]) / "tmux"
    attach_line = shlex.join(attach_command(path, description["name"]))
    known = {**description, "state": Life.ALIVE.value, "attach": attach_line}
    return {key: known.get(key) for key in (*_KEYS, "root", "idle", "runs", "version")}


def _show(description: dict[str, Any]) -> None:
    limit = format_seconds(description["idle_timeout_s"])
    use = "idle" if description["idle"] else "in use"
    click.echo(
        f"  {use}; ends by itself after {limit} without use; started at "
        f"{format_moment(description['started'])}"
    )
    if description["kind"] == "allocation":
        click.echo(f"  its programs are on {description['host']}")
    _show_workers(description["workers"])
    if not description["workers"]:
        click.echo("  no worker at the moment: one is being started; see 'lc session logs worker'")
    for run in description["runs"]:
        click.echo(f"  used by {run['name']}")
    for lease in description["leases"]:
        click.echo(f"  leased by {lease}")
    click.echo("  watch it with 'lc session attach', end it with 'lc session stop'")


def _show_workers(workers: list[dict[str, Any]]) -> None:
    for worker in workers:
        offered = [counted(worker["cpus"], "cpu"), format_bytes(worker["memory"])]
        if worker["gpus"]:
            offered.append(counted(worker["gpus"], "gpu"))
        click.echo(f"  worker on {worker['host']}: {', '.join(offered)}")


def counted(number: float, what: str) -> str:
    """So many of something: ``1 cpu``, ``2 cpus``."""
    return f"{number:g} {what}{'' if number == 1 else 's'}"
