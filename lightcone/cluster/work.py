"""What a worker is to do: a function, by name, and its argument, passed on unopened.

So only workers import the function and what it needs.
"""

from __future__ import annotations

import pickle
from typing import Any

__all__ = ["perform", "wrap"]


def wrap(function: str, argument: Any) -> bytes:
    """A call of ``function``, written ``module:name``, for :func:`perform` on a worker."""
    return pickle.dumps((function, argument), pickle.HIGHEST_PROTOCOL)


def perform(call: bytes) -> None:
    """Make the call that was wrapped."""
    from pkgutil import resolve_name

    function, argument = pickle.loads(call)  # noqa: S301 (from who holds the session's key)
    resolve_name(function)(argument)
