"""Clients of the engine, on this context's session or an external cluster."""

from __future__ import annotations

import contextlib
import functools
import html
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightcone.errors import SessionError
from lightcone.project.context import Context, current_context, external_address
from lightcone.project.variables import ADDRESS_VARIABLE
from lightcone.session.start import ensure_session
from lightcone.system.interpreter import gc_paused
from lightcone.system.units import format_bytes
from lightcone.wire.control_client import ask_session
from lightcone.wire.tls import key_file

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["closing", "connect", "open_client", "silence_engine_logs"]

_CONNECT_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 3.0


def connect(directory: str | os.PathLike[str] | None = None) -> Client:
    """Connect to the session of the project at ``directory``, starting it if needed.

    The caller closes the client; results that it holds keep the session from ending as idle. The
    default of ``directory`` is the working directory.

    Raises:
        LightconeError: outside a project, or where the session cannot be started or reached.
    """
    address = external_address()
    if address is not None:
        return open_client(address)
    context = current_context(None if directory is None else Path(directory))
    return _open_session_client(
        context, ensure_session(context, while_waiting=_import_engine).description
    )


def open_client(address: str, description: dict[str, Any] | None = None, **options: Any) -> Client:
    """Open a client on the scheduler at ``address``.

    Args:
        address: where it listens.
        description: the session's description of itself; None for an external cluster.
        options: further arguments of the engine's own client.

    Raises:
        SessionError: where it cannot be reached.
    """
    from distributed import Client

    client = object.__new__(Client)
    if description is not None:
        # IPython shows an object by this method, which an instance may have too.
        representation = functools.partial(_describe_html, client, description)
        client._repr_html_ = representation  # type: ignore[method-assign]
    try:
        Client.__init__(client, address, timeout=_CONNECT_TIMEOUT, set_as_default=False, **options)
    except (OSError, ValueError, TypeError) as error:
        client.status = "closed"  # or it would try for long to close what never opened
        if isinstance(error, TypeError) and address.startswith("tls://"):
            raise SessionError(
                f"The cluster at {address} wants a key, and the settings here name none: name the "
                "files that its own programs use, as in docs/cli.md, or unset "
                f"{ADDRESS_VARIABLE}."
            ) from error
        raise SessionError(
            f"The cluster at {address} cannot be reached ({error}): check that it runs and that "
            f"{ADDRESS_VARIABLE} names it, or unset that variable."
        ) from error
    return client


@contextlib.contextmanager
def closing(client: Client) -> Iterator[Client]:
    """Close the client at the end of the block, ignoring its errors."""
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=_CLOSE_TIMEOUT)
        client.status = "closed"  # or it would try again when it is forgotten


def silence_engine_logs() -> None:
    """Silence the engine's log messages, because the caller reports lost connections itself."""
    with gc_paused():
        import distributed  # noqa: F401

    for name in ("distributed", "distributed.client", "distributed.core", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _import_engine() -> None:
    import distributed  # noqa: F401


def _describe_html(client: Client, description: dict[str, Any]) -> str:
    """The HTML representation of a client and its session in a notebook."""
    workers = "".join(
        f"<li>{html.escape(str(worker['host']))}: {worker['cpus']:g} cpus, "
        f"{format_bytes(int(worker['memory']))}"
        f"{', ' + str(worker['gpus']) + ' gpus' if worker['gpus'] else ''}</li>"
        for worker in description["workers"]
    )
    return (
        '<div style="border:1px solid #888;border-radius:4px;padding:0.5em 1em;'
        'display:inline-block">'
        f"<b>{html.escape(str(description['name']))}</b> ({html.escape(client.status)})"
        f"<br>{html.escape(str(description['root']))}"
        f'<ul style="margin:0.3em 0">{workers}</ul>'
        "<code>lc session status</code>, <code>lc session attach</code></div>"
    )


def _open_session_client(context: Context, description: dict[str, Any]) -> Client:
    from distributed import Security

    pem = str(key_file(context.state))
    security = Security(
        tls_ca_file=pem, tls_client_cert=pem, tls_client_key=pem, require_encryption=True
    )
    name, address = context.name, description["address"]
    try:
        return open_client(address, description, security=security)
    except SessionError as error:
        try:
            ask_session(context, "describe")
        except OSError:
            raise SessionError(
                f"The session {name} ended, or stopped answering, as it was about to be used: run "
                "again, or see 'lc session status'."
            ) from error
        raise SessionError(
            f"The session {name} is alive, but nothing gets from here to its address {address}, "
            "as in a sandbox or in a network namespace of one's own: run this where the session "
            "was started, or end it with 'lc session stop' and run again."
        ) from error
