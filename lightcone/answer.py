"""What another program answers."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

__all__ = ["answer"]

_PATIENCE = 5.0


def answer(
    *command: str, patience: float = _PATIENCE, environment: Mapping[str, str] | None = None
) -> str | None:
    """What a program prints, or None where it fails or takes longer than ``patience`` seconds.

    It has this process's environment unless another is given.
    """
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=patience,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
