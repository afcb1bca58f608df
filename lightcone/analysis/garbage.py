"""Rest for the garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["no_garbage"]


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Look for no garbage meanwhile: tens of thousands of records are made, and all stay."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.freeze()
            gc.enable()
