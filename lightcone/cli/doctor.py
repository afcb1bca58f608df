"""``lc doctor``."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

import click

import lightcone
from lightcone.context import here, of
from lightcone.errors import SpecError
from lightcone.session.checks import Verdict, check_all

__all__ = ["command"]

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILURE: "red"}


@click.command("doctor", short_help="Check whether this machine is fit for a session.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(as_json: bool) -> int:
    """Check whether this machine is fit for a session, and say what to do where it is not.

    Exits with 1 where a check failed. What it prints can be pasted into a report of a bug.
    """
    try:
        context = here()
    except SpecError:
        context = of(Path.cwd())  # it is about the machine, whatever the directory
    checks = check_all(context)
    system = f"lightcone {lightcone.__version__} on {platform.platform()}"
    failed = any(check.verdict is Verdict.FAILURE for check in checks)
    if as_json:
        click.echo(json.dumps({"system": system, "checks": [asdict(check) for check in checks]}))
        return int(failed)
    for check in checks:
        word = click.style(f"{check.verdict.value:<8}", fg=_COLOURS[check.verdict])
        click.echo(f"{word} {check.name:<12} {check.found}")
        if check.remedy:
            click.echo(f"{'':<21} → {check.remedy}")
    click.echo(system)
    return int(failed)
