"""What is said beside a verb's answer."""

from __future__ import annotations

import click

__all__ = ["say"]


def say(text: str) -> None:
    """Say a line on standard error, so that the answer alone is on standard output."""
    click.echo(f"lc: {text}", err=True)
