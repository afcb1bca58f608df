"""What a process of a cluster that is not ours can see, said by itself."""

from __future__ import annotations

import os
from typing import Any

from lightcone import __version__

__all__ = ["look"]


def look(root: str) -> dict[str, Any]:
    """Whether the directory ``root`` is there, and the ``version`` of lightcone."""
    return {"root": os.path.isdir(root), "version": __version__}
