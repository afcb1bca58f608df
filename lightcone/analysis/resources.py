"""What a recipe says it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from lightcone.analysis.output import Resources
from lightcone.errors import SpecError
from lightcone.units import parse_bytes, parse_seconds

__all__ = ["read_resources"]

_NONE = Resources()


def read_resources(declared: Mapping[str, object] | None, what: str) -> Resources:
    """The resources of a recipe; ``what`` is what messages call it.

    What is not given, or not known here, is left out.

    Raises:
        SpecError: where a value cannot be read.
    """
    if not declared:
        return _NONE
    read: dict[str, int | float] = {}
    for name, parse in _PARSERS.items():
        text = declared.get(name)
        if text is None:
            continue
        try:
            read[name] = parse(str(text))
        except ValueError as error:
            raise SpecError(f"{what}: '{name}' under 'resources': {error}.") from error
    return Resources(
        cpus=read.get("cpus", _NONE.cpus),
        memory=int(read.get("memory", _NONE.memory)),
        gpus=int(read.get("gpus", _NONE.gpus)),
        time_limit=read.get("time_limit"),
    )


def _cpus(text: str) -> float:
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if not 0 < cpus < math.inf:
        raise ValueError(f"{text!r} is not a number of processors (write 1, 4 or 0.5)")
    return cpus


def _gpus(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"{text!r} is not a number of devices (write 1 or 2)")
    return int(text)


def _time_limit(text: str) -> float:
    seconds = parse_seconds(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} leaves no time (write 90, 30m or 1h30m)")
    return seconds


_PARSERS: dict[str, Callable[[str], int | float]] = {
    "cpus": _cpus,
    "memory": parse_bytes,
    "gpus": _gpus,
    "time_limit": _time_limit,
}
