"""The record of a recipe that failed or was interrupted, beside the result that it did not replace.

It is there until the recipe succeeds, and says what became of it; it never makes a result less
good than it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightcone.analysis.output import Output

__all__ = ["FAILURE", "products_of", "read_failure"]

FAILURE = "failure.json"


def read_failure(state_dir: Path) -> dict[str, Any] | None:
    """The record in ``state_dir``, or None where there is none that can be used."""
    try:
        with open(f"{state_dir}/{FAILURE}", "rb") as file:
            record = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def products_of(record: Mapping[str, Any], output: Output) -> set[str]:
    """The files that the output's recipe, as it is declared now, wrote before it failed."""
    products = record.get("products")
    if record.get("template") != output.template or not isinstance(products, list):
        return set()
    return {name for name in products if isinstance(name, str)}
