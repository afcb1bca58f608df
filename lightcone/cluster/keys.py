"""How tasks, and the topics of their messages, are called after the run that wants them."""

from __future__ import annotations

from typing import Any

__all__ = ["is_ours", "key_of", "name_of", "run_of", "topic_of"]

_PREFIX = "lightcone-"


def topic_of(run: str) -> str:
    """The topic of the messages for a run."""
    return f"{_PREFIX}{run}"


def key_of(run: str, name: str) -> str:
    """The key of a run's task; ``run`` contains no ``-``."""
    return f"{_PREFIX}{run}-{name}"


def is_ours(key: Any) -> bool:
    """Whether a task, or a topic, is one of ours, and not of a program of the user's."""
    return isinstance(key, str) and key.startswith(_PREFIX)


def run_of(key: str) -> str:
    """The run whose task has the key."""
    return key.removeprefix(_PREFIX).partition("-")[0]


def name_of(key: str) -> str:
    """The output's name, which stands in a key between the run and a number."""
    name = key.removeprefix(_PREFIX).partition("-")[2]
    head, _, number = name.rpartition("-")
    return head if number.isdigit() else name
