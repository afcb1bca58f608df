"""Joining a cluster: this context's session, or the one the user named."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightcone.context import Context, external_address, here
from lightcone.errors import SessionError
from lightcone.files import read_object
from lightcone.garbage import no_garbage
from lightcone.session import allocated, control, credentials
from lightcone.session.connection import Connection, closing, open_client, quieten
from lightcone.session.external import prepare
from lightcone.session.lease import own
from lightcone.session.readiness import Say
from lightcone.session.starting import ensure

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["connect", "join"]


def connect(directory: str | os.PathLike[str] | None = None) -> Client:
    """A client on the session of the project at ``directory`` (default: here), started if need be.

    The caller closes it; results it holds keep the session from ending as idle.

    Raises:
        LightconeError: outside a project, or where the session cannot be started or reached.
    """
    address = external_address()
    if address is not None:
        return open_client(address)
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
        quieten()
        with closing(open_client(address)) as client:
            yield prepare(client, context)
        return

    def import_all() -> None:
        with no_garbage():
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
    quieten()
    _use_settings_of(description)
    with contextlib.ExitStack() as stack:
        try:
            hold = stack.enter_context(control.hold(context, use=True, lease=own()))
        except OSError as error:
            raise SessionError(
                f"The session {context.name} ended as it was about to be used: run again."
            ) from error
        client = stack.enter_context(closing(_client_of(context, description)))
        ends_at = allocated.ends_at(context, description)
        yield Connection(client, how, hold, resources, ends_at)


def _import_engine() -> None:
    import lightcone.session.notebook  # noqa: F401 (the engine with it)


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
        return open_client(address, description, security=security)
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
