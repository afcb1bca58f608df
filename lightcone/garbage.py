"""Rest for the garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["no_garbage"]


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Look for no garbage meanwhile: what is made by the ten thousand is there to stay.

    Neither is it looked through later, nor at the end of the program.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.freeze()
            gc.enable()
