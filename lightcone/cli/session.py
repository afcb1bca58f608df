"""``lc session``."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lightcone.cli.top import top
from lightcone.context import (
    ADDRESS_VARIABLE,
    Context,
    external_address,
    here,
    runtime_directory,
)
from lightcone.errors import SessionError, SettingsError, SpecError, UsageError
from lightcone.hook import LEASE_VARIABLE
from lightcone.session import control
from lightcone.session.lease import check, own
from lightcone.session.lease import release as release_lease
from lightcone.session.liveness import Life, Liveness, probe, recorded_end
from lightcone.settings import load_settings
from lightcone.units import format_bytes, format_moment, format_seconds, parse_seconds

__all__ = ["command"]

_STATUS_KEYS = (
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
_ROLES = ("scheduler", "worker")


@click.group("session", short_help="The cluster that stays up between runs.")
def command() -> None:
    """The cluster of this project: one, started on first use, that stays up between runs."""


command.add_command(top)


def _say(text: str) -> None:
    click.echo(f"lc: {text}", err=True)


@command.command()
@click.option("--lease", metavar="NAME", help="Take this lease of it, to be given up by release.")
def start(lease: str | None) -> None:
    """Start the session unless it is there, and wait until it is ready."""
    from lightcone.session.lifecycle import ensure

    address = external_address()
    if address is not None:
        click.echo(f"{_describe_external(address)['name']}: used as it is, and not started")
        return
    context = here()
    begun = time.monotonic()
    ensured = ensure(context, _say, lease=None if lease is None else check(lease))
    how = f"started in {format_seconds(time.monotonic() - begun)}"
    click.echo(f"{context.name}: {how if ensured.spawned else 'is up already'}")


@command.command()
def env() -> None:
    """Print the variables by which a program of yours joins the session: eval "$(lc session env)".

    The session is started if need be. What lc does in such a shell stays the same.
    """
    from lightcone.cluster.command import client_variables
    from lightcone.session.credentials import key_file
    from lightcone.session.lifecycle import ensure

    address = external_address()
    if address is not None:
        click.echo(f"export {ADDRESS_VARIABLE}={shlex.quote(address)}")
        return
    context = here()
    told = ensure(context, _say).description
    for name, value in client_variables(told["address"], key_file(context.state)).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@command.command()
@click.argument("lease", required=False)
def release(lease: str | None) -> None:
    """Give up a LEASE (default: this shell's), in all sessions of yours on this host.

    A session whose last lease is given up ends, unless somebody still uses it.
    """
    name = own() if lease is None else check(lease)
    if name is None:
        raise UsageError(
            f"No lease is named: write 'lc session release NAME', or set {LEASE_VARIABLE}."
        )
    release_lease(name, os.getcwd())


@command.command()
@click.option("--force", is_flag=True, help="Also where whether it is alive cannot be told.")
def stop(force: bool) -> None:
    """End the session and everything it runs; does nothing where there is none."""
    from lightcone.session.lifecycle import stop as stop_session
    from lightcone.session.request import give_back

    address = external_address()
    if address is not None:
        _say(f"the cluster at {address}, which {ADDRESS_VARIABLE} names, is not lc's to stop")
        return
    context = here()
    reason = f"stopped by 'lc session stop{' --force' if force else ''}'"
    if stop_session(context, reason, force=force):
        click.echo(f"{context.name}: ended")
    if give_back(context):
        click.echo(f"SLURM job {context.job}, which 'lc run --allocate' got: ended")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def status(as_json: bool) -> None:
    """Say whether the session is alive, and what it has."""
    address = external_address()
    if address is not None:
        told = _describe_external(address)
        if as_json:
            click.echo(json.dumps({key: told.get(key) for key in _STATUS_KEYS}))
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


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_(as_json: bool) -> None:
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
        click.echo(json.dumps([_alive(description) for description in found]))
        return
    for description in found:
        cpus = sum(worker["cpus"] for worker in description["workers"])
        use = "idle" if description["idle"] else "in use"
        offered = f"{_counted(cpus, 'cpu'):<8}"
        click.echo(f"{description['name']:<40} {offered} {use:<6}  {description['root']}")


@command.command()
def attach() -> None:
    """Watch the session's programs: read-only; q or Ctrl-C leaves, and harms nothing."""
    from lightcone.session import tmux

    context = here()
    found = probe(context)
    if found.life is Life.DEAD:
        raise SessionError(f"There is nothing to attach to, {found.why}: start it with 'lc run'.")
    if found.life is Life.UNKNOWN:
        raise SessionError(
            f"There is nothing to attach to, because {found.why}: look at 'lc session logs'."
        )
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError("Attaching needs a terminal: use 'lc session logs' to read instead.")
    host = found.description["host"]
    if host != socket.gethostname():
        raise SessionError(
            f"The session {context.name} is on {host}: attach there, or use 'lc session logs'."
        )
    if not tmux.answers(context.tmux_socket):
        raise SessionError(
            f"The session {context.name} is alive, but its terminal server does not answer on "
            f"{context.tmux_socket}: use 'lc session logs', or end it with 'lc session stop'."
        )
    tmux.attach(context.tmux_socket, context.name)


@command.command()
@click.argument("program", required=False, type=click.Choice(_ROLES))
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added.")
@click.option(
    "-n",
    "--lines",
    default=100,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many of the last lines of each.",
)
def logs(program: str | None, follow: bool, lines: int) -> None:
    """Show what the session's programs have logged, also after their end."""
    context = here()
    roles = _ROLES if program is None else (program,)
    files = [context.state / "logs" / f"{role}.log" for role in roles]
    files = [file for file in files if file.exists()]
    if not files:
        raise SessionError("There are no logs, as no session was started here: use 'lc run'.")
    arguments = ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)]
    os.execvp("tail", arguments)  # noqa: S606 (no shell; the system's own tail)


@command.command()
@click.option(
    "--for",
    "what",
    type=click.Choice(["ready", "idle", "end"]),
    default="ready",
    show_default=True,
    help="Until the session can be used, nobody uses it, or it has ended.",
)
@click.option("--timeout", help="Give up after this long, with exit code 1; for example 10m.")
def wait(what: str, timeout: str | None) -> int:
    """Wait until the session is ready, idle or ended."""
    try:
        seconds = None if timeout is None else parse_seconds(timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}.") from error
    context = here()
    waits: dict[str, Callable[[Context, float | None], bool]] = {
        "ready": _wait_ready,
        "idle": _wait_idle,
        "end": _wait_end,
    }
    if waits[what](context, seconds):
        return 0
    click.echo(
        f"lc: {context.name}: not {'ended' if what == 'end' else what} within {timeout}", err=True
    )
    return 1


def _wait_ready(context: Context, seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        try:
            control.ask(context, "ready", None if left is None else max(left, 0.1))
        except OSError:
            # Nobody can be told to say when a session that does not exist yet begins.
            if left is not None and left <= 0:
                return False
            time.sleep(0.1)
        else:
            return True


def _wait_idle(context: Context, seconds: float | None) -> bool:
    try:
        limit = None if seconds is None else max(seconds, 0.1)
        control.ask(context, "idle", limit)
    except TimeoutError:
        return False
    except OSError:
        pass  # no session is as idle as can be
    return True


def _wait_end(context: Context, seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        found = probe(context)
        if found.life is Life.DEAD and not found.remains:
            return True
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        if found.life is Life.ALIVE:
            with (
                contextlib.suppress(OSError),
                control.hold(context, use=False) as hold,
            ):
                hold.wait_for_end(left)
        else:
            time.sleep(0.1)


def _describe(context: Context, found: Liveness) -> dict[str, Any]:
    if found.life is Life.ALIVE:
        return _alive(found.description)
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
    return {key: known.get(key) for key in (*_STATUS_KEYS, "why", "ended")}


def _alive(description: dict[str, Any]) -> dict[str, Any]:
    from lightcone.session.tmux import attach_command

    path = Path(description["runtime_dir"]) / "tmux"
    attach_line = shlex.join(attach_command(path, description["name"]))
    known = {**description, "state": Life.ALIVE.value, "attach": attach_line}
    return {key: known.get(key) for key in (*_STATUS_KEYS, "root", "idle", "runs", "version")}


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


def _describe_external(address: str) -> dict[str, Any]:
    from lightcone.session.client import describe_external

    return describe_external(address)


def _show_workers(workers: list[dict[str, Any]]) -> None:
    for worker in workers:
        offered = [_counted(worker["cpus"], "cpu"), format_bytes(worker["memory"])]
        if worker["gpus"]:
            offered.append(_counted(worker["gpus"], "gpu"))
        click.echo(f"  worker on {worker['host']}: {', '.join(offered)}")


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
