"""A connection to a cluster: a client of its scheduler, opened and closed without noise."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightcone.context import ADDRESS_VARIABLE
from lightcone.errors import SessionError
from lightcone.session import control

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Connection", "closing", "open_client", "quieten"]

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


def open_client(address: str, description: dict[str, Any] | None = None, **options: Any) -> Client:
    """A client on the scheduler at ``address``.

    Args:
        address: where it listens.
        description: what the session says of itself, where it is one of ours.
        options: what the engine's own client takes beside these.

    Raises:
        SessionError: where it cannot be reached.
    """
    from distributed import Client

    from lightcone.session.notebook import SessionClient

    client = object.__new__(Client if description is None else SessionClient)
    if isinstance(client, SessionClient):
        client.description = description or {}
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
    """Close the client at the end; one whose cluster has just died may fail at it in any way."""
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.close(timeout=_CLOSE_TIMEOUT)
        client.status = "closed"  # or it would try again when it is forgotten


def quieten() -> None:
    """Keep the engine from saying what the caller says better, of a lost connection above all."""
    import distributed  # noqa: F401

    for name in ("distributed", "distributed.client", "distributed.core", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
