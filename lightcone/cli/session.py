"""``lc session``: start, query and stop the session of a project."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import click

from lightcone.cli.main import Verbs
from lightcone.cli.streams import notify
from lightcone.errors import SettingsError, SpecError, UsageError
from lightcone.project.context import Context, current_context, external_address
from lightcone.project.host import runtime_directory
from lightcone.project.settings import load_settings
from lightcone.project.variables import ADDRESS_VARIABLE, LEASE_VARIABLE
from lightcone.session.lease import check_lease, own_lease, release_lease
from lightcone.session.liveness import Life, Liveness, probe, recorded_end
from lightcone.system.units import format_bytes, format_moment, format_seconds
from lightcone.wire.control_client import ask_session

__all__ = ["command"]

_VIEW = "lightcone.cli.session_view"


@click.command(
    "session",
    cls=Verbs,
    verbs={
        "attach": f"{_VIEW}:attach",
        "env": f"{__name__}:print_environment",
        "list": f"{__name__}:list_sessions",
        "logs": f"{_VIEW}:show_logs",
        "release": f"{__name__}:release",
        "start": f"{__name__}:start",
        "status": f"{__name__}:show_status",
        "stop": f"{__name__}:stop",
        "top": f"{_VIEW}:top",
        "wait": f"{_VIEW}:wait",
    },
    short_help="The cluster that stays up between runs.",
)
def command() -> None:
    """The cluster of this project: one, started on first use, that stays up between runs."""


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
def show_status(as_json: bool) -> None:
    """Show whether the session is alive, and its resources."""
    address = external_address()
    if address is not None:
        from lightcone.session.external import describe

        description = describe(address)
        if as_json:
            click.echo(json.dumps({key: description.get(key) for key in _KEYS}))
        else:
            click.echo(
                f"{description['name']}: {description['state']}, named by {ADDRESS_VARIABLE}"
            )
            _show_workers(description["workers"])
        return
    context = current_context()
    liveness = probe(context)
    if as_json:
        click.echo(json.dumps(_describe(context, liveness)))
        return
    click.echo(
        f"{context.name}: {liveness.life.value}{f', {liveness.why}' if liveness.why else ''}"
    )
    if liveness.life is Life.ALIVE:
        _show(liveness.description)
    elif (ended := recorded_end(context)) is not None:
        click.echo(f"  the last one ended at {format_moment(ended['at'])}: {ended['reason']}")


def _describe(context: Context, liveness: Liveness) -> dict[str, Any]:
    if liveness.life is Life.ALIVE:
        return _describe_alive(liveness.description)
    known = {
        "state": liveness.life.value,
        "name": context.name,
        "key": context.key,
        "kind": context.kind,
        "idle_timeout_s": context.settings.idle_timeout,
        "workers": [],
        "why": liveness.why,
        "ended": recorded_end(context),
    }
    return {key: known.get(key) for key in (*_KEYS, "why", "ended")}


def _describe_alive(description: dict[str, Any]) -> dict[str, Any]:
    """The fields that ``--json`` shows of a living session."""
    from lightcone.session.terminal.tmux import attach_command

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
        offered = [_counted(worker["cpus"], "cpu"), format_bytes(worker["memory"])]
        if worker["gpus"]:
            offered.append(_counted(worker["gpus"], "gpu"))
        click.echo(f"  worker on {worker['host']}: {', '.join(offered)}")


def _counted(number: float, what: str) -> str:
    """A number with its noun: ``1 cpu``, ``2 cpus``."""
    return f"{number:g} {what}{'' if number == 1 else 's'}"


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_sessions(as_json: bool) -> None:
    """List this user's live sessions on this host, and that of this allocation."""
    places: list[Context | Path] = []
    try:
        context = current_context()
        settings = context.settings
        if context.job is not None and not context.control_socket.exists():
            places.append(context)  # on another host of the allocation
    except (SettingsError, SpecError):
        # Outside a project, or in a broken one, the list is the same.
        settings = load_settings(Path("/"))
    places += sorted(runtime_directory(settings).glob("*/control"))
    descriptions = []
    for place in places:
        try:
            descriptions.append(ask_session(place, "describe"))
        except OSError:
            continue
    if as_json:
        click.echo(json.dumps([_describe_alive(description) for description in descriptions]))
        return
    for description in descriptions:
        cpus = sum(worker["cpus"] for worker in description["workers"])
        use = "idle" if description["idle"] else "in use"
        offered = f"{_counted(cpus, 'cpu'):<8}"
        click.echo(f"{description['name']:<40} {offered} {use:<6}  {description['root']}")


@click.command("start")
@click.option("--lease", metavar="NAME", help="Take this lease of it, to be given up by release.")
def start(lease: str | None) -> None:
    """Start the session unless it is there, and wait until it is ready."""
    from lightcone.session.start import ensure_session

    address = external_address()
    if address is not None:
        from lightcone.session.external import describe

        click.echo(f"{describe(address)['name']}: used as it is, and not started")
        return
    context = current_context()
    started = time.monotonic()
    ensured = ensure_session(context, notify, lease=None if lease is None else check_lease(lease))
    how = f"started in {format_seconds(time.monotonic() - started)}"
    click.echo(f"{context.name}: {how if ensured.spawned else 'is up already'}")


@click.command("stop")
@click.option("--force", is_flag=True, help="Also where whether it is alive cannot be told.")
def stop(force: bool) -> None:
    """End the session and everything it runs; does nothing where there is none."""
    from lightcone.session.request import end_allocation
    from lightcone.session.stop import stop_session

    address = external_address()
    if address is not None:
        notify(f"the cluster at {address}, which {ADDRESS_VARIABLE} names, is not lc's to stop")
        return
    context = current_context()
    reason = f"stopped by 'lc session stop{' --force' if force else ''}'"
    if stop_session(context, reason, force=force):
        click.echo(f"{context.name}: ended")
    if end_allocation(context):
        click.echo(f"SLURM job {context.job}, which 'lc run --allocate' got: ended")


@click.command("release")
@click.argument("lease", required=False)
def release(lease: str | None) -> None:
    """Release a LEASE (default: this shell's), in all your sessions on this host.

    A session ends when its last lease is released, unless it is still in use.
    """
    name = own_lease() if lease is None else check_lease(lease)
    if name is None:
        raise UsageError(
            f"No lease is named: write 'lc session release NAME', or set {LEASE_VARIABLE}."
        )
    release_lease(name, os.getcwd())


@click.command("env")
def print_environment() -> None:
    """Print the variables by which another program joins the session: eval "$(lc session env)".

    The session is started if need be. What lc does in such a shell stays the same.
    """
    from lightcone.engine.command_lines import client_variables
    from lightcone.session.start import ensure_session
    from lightcone.wire.tls import key_file

    address = external_address()
    if address is not None:
        click.echo(f"export {ADDRESS_VARIABLE}={shlex.quote(address)}")
        return
    context = current_context()
    description = ensure_session(context, notify).description
    for name, value in client_variables(description["address"], key_file(context.state)).items():
        click.echo(f"export {name}={shlex.quote(value)}")
