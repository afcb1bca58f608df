"""What a recipe says it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightcone.analysis.output import Resources
from lightcone.errors import SpecError
from lightcone.units import parse_bytes, parse_seconds

__all__ = ["read_resources"]


def read_resources(declared: Mapping[str, object] | None, what: str) -> Resources:
    """The resources of a recipe; ``what`` is what messages call it.

    Raises:
        SpecError: where a value cannot be read.
    """
    if not declared:
        return Resources()
    cpus = declared.get("cpus")
    memory = declared.get("memory")
    gpus = declared.get("gpus")
    limit = declared.get("time_limit")
    return Resources(
        cpus=Resources.cpus if cpus is None else _cpus(cpus, what),
        memory=0 if memory is None else _parsed(parse_bytes, "memory", memory, what),
        gpus=0 if gpus is None else _gpus(gpus, what),
        time_limit=None if limit is None else _parsed(parse_seconds, "time_limit", limit, what),
    )
