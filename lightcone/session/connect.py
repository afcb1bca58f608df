"""Joining a cluster: this context's session, or the one the user named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lightcone.errors import SessionError
from lightcone.project.context import Context, external_address
from lightcone.session.allocation import ends_at
from lightcone.session.lease import own_lease
from lightcone.session.liveness import Notify
from lightcone.session.start import ensure_session
from lightcone.wire.transport import Transport, session_transport

__all__ = ["Connection", "join_cluster"]


@dataclass(frozen=True)
class Connection:
    """A cluster that is there to be used.

    Attributes:
        transport: to it, for one caller.
        how: ``"spawned"``, ``"reused"`` or ``"external"``.
        resources: what each worker has, by name (``CPU``, ``MEMORY`` in bytes, ``GPU``); empty
            where workers declare nothing and are bounded by their threads.
        ends_at: when the allocation that it is in ends, in seconds since the epoch, or None.
    """

    transport: Transport
    how: str
    resources: list[dict[str, float]]
    ends_at: float | None = None


@contextlib.contextmanager
def join_cluster(
    context: Context, notify: Notify, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[Connection]:
    """Join the cluster that serves ``context``, starting its session if need be.

    Nothing of the engine is imported for a session of ours.

    Args:
        context: whose cluster.
        notify: is told, in a line, what takes time.
        while_waiting: is called while a session is starting, for what the caller will need anyway.

    Raises:
        SessionError: where it cannot be started or reached.
    """
    address = external_address()
    if address is not None:
        from lightcone.session.external import joined

        with joined(address, context) as (transport, resources):
            yield Connection(transport, "external", resources)
        return
    ensured = ensure_session(context, notify, while_waiting)
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
    with contextlib.ExitStack() as stack:
        try:
            transport = stack.enter_context(session_transport(context, own_lease()))
        except OSError as error:
            what = "did not answer" if isinstance(error, TimeoutError) else "ended"
            raise SessionError(
                f"The session {context.name} {what} as it was about to be used: run again."
            ) from error
        yield Connection(transport, how, resources, ends_at(context, description))
