"""The session that a verb cannot do without."""

from __future__ import annotations

from lightcone.context import Context
from lightcone.errors import SessionError
from lightcone.session.liveness import Life, Liveness, probe

__all__ = ["living"]


def living(context: Context, purpose: str) -> Liveness:
    """What is known of the session of ``context``, which is alive.

    Args:
        context: whose session.
        purpose: what cannot be done without it, as in ``attach to``.

    Raises:
        SessionError: where it is not alive, or that cannot be told.
    """
    found = probe(context)
    if found.life is Life.DEAD:
        raise SessionError(f"There is nothing to {purpose}, {found.why}: start it with 'lc run'.")
    if found.life is Life.UNKNOWN:
        raise SessionError(
            f"There is nothing to {purpose}, because {found.why}: look at 'lc session logs'."
        )
    return found
