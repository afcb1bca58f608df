"""Joining a cluster: this context's session, or an external one."""

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
    """A cluster that the caller has joined.

    Attributes:
        transport: the messages to and from it, of one caller.
        origin: ``"spawned"``, ``"reused"`` or ``"external"``.
        resources: what each worker has, by name (``CPU``, ``MEMORY`` in bytes, ``GPU``); empty
            where workers declare nothing and are bounded by their threads.
        ends_at: when the allocation that it is in ends, in seconds since the epoch, or None.
    """

    transport: Transport
    origin: str
    resources: list[dict[str, float]]
    ends_at: float | None = None


@contextlib.contextmanager
def join_cluster(
    context: Context, notify: Notify, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[Connection]:
    """Join the cluster that serves ``context``, starting its session if needed.

    Nothing of the engine is imported for a session of ours.

    Args:
        context: whose cluster.
        notify: called with a line of text about each step that takes time.
        while_waiting: called while a session is starting, for work that the caller needs anyway.

    Raises:
        SessionError: where it cannot be started or reached.
    """
    address = external_address()
    if address is not None:
        from lightcone.session.external import join_external

        with join_external(address, context) as (transport, resources):
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
    origin = "spawned" if ensured.spawned else "reused"
    with contextlib.ExitStack() as stack:
        try:
            transport = stack.enter_context(session_transport(context, own_lease()))
        except OSError as error:
            problem = "did not answer" if isinstance(error, TimeoutError) else "ended"
            raise SessionError(
                f"The session {context.name} {problem} as it was about to be used: run again."
            ) from error
        yield Connection(transport, origin, resources, ends_at(context, description))
