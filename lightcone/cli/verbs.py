"""A group of verbs, each of them a module that is imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import click

__all__ = ["Verbs"]


class Verbs(click.Group):
    """The everyday calls come from agents, many a minute: no verb pays for another's imports.

    Args:
        package: the package that has, for each verb, a module of its name with a ``command``.
        verbs: the verbs, in the order in which they are listed.
    """

    def __init__(self, *, package: str, verbs: Iterable[str], **given: Any) -> None:
        super().__init__(**given)
        self._package = package
        self._verbs = list(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        module = importlib.import_module(f"{self._package}.{cmd_name}")
        command: click.Command = module.command
        return command
