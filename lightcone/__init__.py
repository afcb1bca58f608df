"""One compute cluster per project, kept alive, and analyses run on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightcone.errors import LightconeError

if TYPE_CHECKING:
    from lightcone.session.client import connect

__all__ = ["LightconeError", "__version__", "connect"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # The engine takes most of a second to import, and most calls never need it.
    if name == "connect":
        from lightcone.session.client import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
