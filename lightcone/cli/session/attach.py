"""``lc session attach``."""

from __future__ import annotations

import os
import socket

import click

from lightcone.cli.session.living import living
from lightcone.context import here
from lightcone.errors import SessionError, UsageError

__all__ = ["command"]


@click.command("attach")
def command() -> None:
    """Watch the session's programs: read-only; q or Ctrl-C leaves, and harms nothing."""
    from lightcone.session import tmux

    context = here()
    found = living(context, "attach to")
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
