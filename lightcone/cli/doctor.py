"""``lc doctor``."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

import click

import lightcone
from lightcone.errors import SpecError
from lightcone.project.context import context_of, find_root
from lightcone.session.doctor import check_machine, versions
from lightcone.session.doctor_host import Check, Verdict

__all__ = ["command"]

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILURE: "red"}


@click.command("doctor", short_help="Check whether this machine is fit for a session.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(as_json: bool) -> int:
    """Check whether this machine is fit for a session, and say what to do where it is not.

    Exits with 1 where a check failed. The last lines are for a report of a bug: they name versions
    and what is not ok, and nothing of yours.
    """
    try:
        root = find_root(Path.cwd())
    except SpecError:
        root = Path.cwd()  # it is about the machine, whatever the directory
    context = context_of(root)
    checks = check_machine(context)
    system = (
        f"lightcone {lightcone.__version__}, Python {platform.python_version()}, "
        f"{platform.platform()}"
    )
    used = versions(context)
    if as_json:
        rows = [asdict(check) for check in checks]
        click.echo(json.dumps({"system": system, "versions": used, "checks": rows}))
    else:
        _show(checks)
        click.echo(f"\nFor a report of a bug:\n{system}\n{', '.join(used)}\n{_summary(checks)}")
    return int(any(check.verdict is Verdict.FAILURE for check in checks))


def _show(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        word = click.style(f"{check.verdict.value:<7}", fg=_COLOURS[check.verdict])
        click.echo(f"{word}  {check.name:<{width}}  {check.found}")
        if check.remedy:
            click.echo(f"{'':<{width + 9}}  → {check.remedy}")


def _summary(checks: list[Check]) -> str:
    """The names of the checks that are not ok; findings may name paths."""
    wrong = [f"{check.verdict.value}: {check.name}" for check in checks if check.remedy]
    return ", ".join(wrong) or "nothing found wrong"
