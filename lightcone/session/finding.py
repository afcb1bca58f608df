"""What a check of this machine came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Check", "Verdict"]


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and what to do where it is not ok."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
