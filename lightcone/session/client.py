"""Joining a cluster: this context's session, or the one the user named."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightcone.context import ADDRESS_VARIABLE, Context, external_address, here
from lightcone.errors import SessionError
from lightcone.files import read_object
from lightcone.session import allocated, control, credentials
from lightcone.session.lease import own
from lightcone.session.readiness import Say
from lightcone.session.starting import ensure

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Connection", "connect", "describe_external", "join"]

_CONNECT_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 3.0


@dataclass(frozen=True)
class Connection:
    """A cluster that is there to be used.

    Attributes:
        client: the engine's client, connected.
        how: ``"spawned"``, ``"reused"`` or ``"external"``.
        hold: the open connection to the session, where it is one of ours.
        resources: what each worker has, by name (``CPU``, ``MEMORY`` in bytes, ``GPU``); empty
            where workers declare nothing and are bounded by their threads.
        ends_at: when the allocation that it is in ends, in seconds since the epoch, or None.
    """

    client: Client
    how: str
    hold: control.Hold | None
    resources: list[dict[str, float]]
    ends_at: float | None = None


def connect(directory: str | os.PathLike[str] | None = None) -> Client:
    """A client on the session of the project at ``directory`` (default: here), started if need be.

    The caller closes it; results it holds keep the session from ending as idle.

    Raises:
        LightconeError: outside a project, or where the session cannot be started or reached.
    """
    address = external_address()
    if address is not None:
        return _client(address)
    context = here(None if directory is None else Path(directory))
    return _client_of(context, ensure(context, meanwhile=_import_engine).description)


@contextlib.contextmanager
def join(
    context: Context, say: Say, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[Connection]:
    """Join the cluster that serves ``context``, starting its session if need be.

    Args:
        context: whose cluster.
        say: is told, in a line, what takes time.
        meanwhile: is called while a session is starting, for what the caller will need anyway.

    Raises:
        SessionError: where it cannot be started or reached.
    """
    address = external_address()
    if address is not None:
        _quieten()
        with _closing(_client(address)) as client:
            yield _prepare(client, context)
        return

    def import_all() -> None:
        import distributed  # noqa: F401

        meanwhile()

    ensured = ensure(context, say, import_all)
    description = ensured.description
    resources = [
        {
            "CPU": float(worker["cpus"]),
            "MEMORY": float(worker["memory"]),
            "GPU": float(worker["gpus"]),
        }
        for worker in description["workers"]
    ]
    how = "spawned" if ensured.spawned else "reused"
    _quieten()
    _use_settings_of(description)
    with contextlib.ExitStack() as stack:
        try:
            hold = stack.enter_context(control.hold(context, use=True, lease=own()))
        except OSError as error:
            raise SessionError(
                f"The session {context.name} ended as it was about to be used: run again."
            ) from error
        client = stack.enter_context(_closing(_client_of(context, description)))
        ends_at = allocated.ends_at(context, description)
        yield Connection(client, how, hold, resources, ends_at)


def describe_external(address: str) -> dict[str, Any]:
    """What the cluster at ``address``, which is not ours, says of itself.

    Raises:
        SessionError: where it cannot be reached.
    """
    _quieten()
    with _closing(_client(address)) as client:
        told = client.scheduler_info(n_workers=-1)
    workers = [
        {
            "host": worker["host"],
            "cpus": worker["resources"].get("CPU", worker["nthreads"]),
            "memory": int(worker["resources"].get("MEMORY", worker["memory_limit"] or 0)),
            "gpus": int(worker["resources"].get("GPU", 0)),
        }
        for worker in told["workers"].values()
    ]
    return {
        "state": "alive",
        "name": address,
        "kind": "external",
        "host": address.partition("://")[2].rpartition(":")[0],
        "address": address,
        "workers": workers,
    }


@contextlib.contextmanager
def _closing(client: Client) -> Iterator[Client]:
    """Close the client at the end; one whose cluster has just died may fail at it in any way."""
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=_CLOSE_TIMEOUT)
        client.status = "closed"  # or it would try again when it is forgotten


def _import_engine() -> None:
    import lightcone.session.notebook  # noqa: F401 (the engine with it)


def _quieten() -> None:
    """Keep the engine from saying what the caller says better, of a lost connection above all."""
    import distributed  # noqa: F401

    for name in ("distributed", "distributed.client", "distributed.core", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _use_settings_of(description: dict[str, Any]) -> None:
    """Use the session's engine settings here too, and not those of this user's other programs."""
    import dask

    from lightcone.cluster.engine import start_no_uname, use_steady_clock

    file = Path(description["state_dir"]) / "engine.json"
    try:
        with contextlib.suppress(FileNotFoundError):
            read_object(file)
    except (OSError, ValueError) as error:
        raise SessionError(
            f"The session's settings in {file} are damaged: end it with 'lc session stop', and run "
            "again."
        ) from error
    use_steady_clock()
    start_no_uname()
    dask.config.refresh(paths=[str(file)], env={})


def _client_of(context: Context, description: dict[str, Any]) -> Client:
    from distributed import Security

    pem = str(credentials.key_file(context.state))
    security = Security(
        tls_ca_file=pem, tls_client_cert=pem, tls_client_key=pem, require_encryption=True
    )
    name, address = context.name, description["address"]
    try:
        return _client(address, description, security=security)
    except SessionError as error:
        try:
            control.ask(context, "describe")
        except OSError:
            raise SessionError(
                f"The session {name} ended, or stopped answering, as it was about to be used: run "
                "again, or see 'lc session status'."
            ) from error
        raise SessionError(
            f"The session {name} is alive, but nothing gets from here to its address {address}, "
            "as in a sandbox or in a network namespace of one's own: run lc where the session was "
            "started, or end it with 'lc session stop' and run again."
        ) from error


def _client(address: str, description: dict[str, Any] | None = None, **options: Any) -> Client:
    from distributed import Client

    from lightcone.session.notebook import SessionClient

    client = object.__new__(Client if description is None else SessionClient)
    if isinstance(client, SessionClient):
        client.description = description or {}
    try:
        Client.__init__(client, address, timeout=_CONNECT_TIMEOUT, set_as_default=False, **options)
    except (OSError, ValueError, TypeError) as error:
        client.status = "closed"  # or it would try for long to close what never opened
        raise SessionError(
            f"The cluster at {address} cannot be reached ({error}): check that it runs and that "
            f"{ADDRESS_VARIABLE} names it, or unset that variable."
        ) from error
    return client


def _prepare(client: Client, context: Context) -> Connection:
    """Teach a cluster that is not ours what our own ones load when they start."""
    from lightcone.cluster.commands import Commands
    from lightcone.cluster.runs import Runs

    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise SessionError(
            f"The cluster named by {ADDRESS_VARIABLE} has no workers: start some, or unset it."
        )
    resources = [dict(worker["resources"]) for worker in workers]
    declared = all("CPU" in resource for resource in resources)
    root = str(context.root)
    try:
        blind = [each for each, there in client.run(os.path.isdir, root).items() if not there]
    except Exception as error:
        raise SessionError(
            f"The cluster named by {ADDRESS_VARIABLE} cannot be asked ({error}): check that its "
            "workers run the Python and the packages of this call, or unset that variable."
        ) from error
    if blind:
        raise SessionError(
            f"The cluster named by {ADDRESS_VARIABLE} does not see the project's directory {root} "
            f"on {', '.join(sorted(blind))}: put the project where all its workers see it."
        )
    try:
        client.register_plugin(Runs())
        client.register_plugin(Commands(context.settings.grace, bounded_by_threads=not declared))
    except Exception as error:
        raise SessionError(
            f"The cluster named by {ADDRESS_VARIABLE} cannot be used ({error}): install lightcone "
            "where its scheduler and workers run, or unset that variable."
        ) from error
    return Connection(client, "external", None, resources if declared else [])
