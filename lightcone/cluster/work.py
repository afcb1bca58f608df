"""What a worker is to do: a function and its argument, which the scheduler passes on unopened.

So only workers import what the function needs.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

__all__ = ["perform", "wrap"]


def wrap(function: Callable[[Any], None], argument: object) -> bytes:
    """The call ``function(argument)``, for :func:`perform` on a worker."""
    return pickle.dumps((function, argument), pickle.HIGHEST_PROTOCOL)


def perform(call: bytes) -> None:
    """Make the call that was wrapped."""
    function, argument = pickle.loads(call)  # noqa: S301 (from who holds the session's key)
    function(argument)
