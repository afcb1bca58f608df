"""The record of a recipe that failed or was interrupted, beside the result that it did not replace.

It is there until the recipe succeeds, and says what became of it; it never makes a result less
good than it is.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.analysis.output import Output
from lightcone.files import read_object, write_atomically

__all__ = ["FAILURE", "VERSION", "products_of", "read_failure", "write_failure"]

FAILURE = "failure.json"
VERSION = 1


def read_failure(state_dir: str | Path) -> dict[str, Any] | None:
    """The record in ``state_dir``, or None where there is none that can be used.

    One of another version says nothing here.
    """
    try:
        record = read_object(f"{state_dir}/{FAILURE}")
    except (OSError, ValueError):
        return None
    return record if record.get("version") == VERSION else None


def write_failure(
    output: Output,
    identity: str,
    reason: str,
    *,
    exit_code: int | None,
    interrupted: bool,
    products: Sequence[str],
) -> None:
    """Record that ``output`` could not be made, where there is room for that.

    Args:
        output: the output.
        identity: what was to be made.
        reason: why it was not, in words.
        exit_code: how its recipe ended; None where it did not come to that.
        interrupted: whether it was ended because nobody wanted it any more.
        products: the files that its command names and its recipe wrote.
    """
    record = {
        "version": VERSION,
        "identity": identity,
        "template": output.template,
        "products": list(products),
        "exit_code": exit_code,
        "reason": reason,
        "interrupted": interrupted,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):
        content = json.dumps(record).encode()
        write_atomically(output.state_dir / FAILURE, content, mode=0o666, durable=False)


def products_of(record: Mapping[str, Any], output: Output) -> set[str]:
    """The files that the output's recipe, as it is declared now, wrote before it failed."""
    products = record.get("products")
    if record.get("template") != output.template or not isinstance(products, list):
        return set()
    return {name for name in products if isinstance(name, str)}
