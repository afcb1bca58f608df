"""``lc session list``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lightcone.cli.session.status import alive, counted
from lightcone.context import Context, here
from lightcone.errors import SettingsError, SpecError
from lightcone.host import runtime_directory
from lightcone.session import control
from lightcone.settings import load_settings

__all__ = ["command"]


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def command(as_json: bool) -> None:
    """List the live sessions of this user on this host, and that of this allocation."""
    places: list[Context | Path] = []
    try:
        context = here()
        settings = context.settings
        if context.job is not None and not context.control_socket.exists():
            places.append(context)  # on another host of the allocation
    except (SettingsError, SpecError):
        # Outside a project, or in a broken one, the list is the same.
        settings = load_settings(Path("/"))
    places += sorted(runtime_directory(settings).glob("*/control"))
    found = []
    for place in places:
        try:
            found.append(control.ask(place, "describe"))
        except OSError:
            continue
    if as_json:
        click.echo(json.dumps([alive(description) for description in found]))
        return
    for description in found:
        cpus = sum(worker["cpus"] for worker in description["workers"])
        use = "idle" if description["idle"] else "in use"
        offered = f"{counted(cpus, 'cpu'):<8}"
        click.echo(f"{description['name']:<40} {offered} {use:<6}  {description['root']}")
