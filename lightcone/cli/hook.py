"""``lc hook`` as a command with help; ``hook_fast`` does the work."""

from __future__ import annotations

import click

from lightcone.cli import hook_fast

__all__ = ["command"]


@click.group("hook", short_help="What an agent's hooks call.")
def command() -> None:
    """Handle an agent's hooks, with JSON on standard input; always quiet, and always 0."""


@command.command("session-start")
def session_start() -> None:
    """Name the lease of the conversation that begins or goes on, for its shells."""
    hook_fast.run("session-start")


@command.command("session-end")
def session_end() -> None:
    """Release the lease of a conversation that has ended."""
    hook_fast.run("session-end")
