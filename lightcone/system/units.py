"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from datetime import datetime

__all__ = ["format_bytes", "format_moment", "format_seconds", "parse_bytes", "parse_seconds"]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d)?", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_seconds(text: str | int | float) -> float:
    """Parse a duration such as ``90``, ``"30m"`` or ``"1h30m"`` into seconds.

    A bare number is seconds.

    Raises:
        ValueError: where the text is no duration; its message quotes the text.
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{text!r} is not a duration (write 90, 30m or 1h30m)")
    if not isinstance(text, str):
        text = repr(text)
    rest, total = text.strip(), 0.0
    if not rest:
        raise ValueError(f"{text!r} is not a duration (write 90, 30m or 1h30m)")
    while rest:
        match = _DURATION.match(rest)
        if match is None:
            raise ValueError(f"{text!r} is not a duration (write 90, 30m or 1h30m)")
        total += float(match[1]) * _SECONDS[(match[2] or "s").lower()]
        rest = rest[match.end() :].lstrip()
    return total


def parse_bytes(text: str | int) -> int:
    """Parse a size such as ``16Gi``, ``"500M"`` or ``1024`` into bytes.

    ``k`` is 1000 and ``Ki`` 1024.

    Raises:
        ValueError: where the text is no size; its message quotes the text.
    """
    match = None if isinstance(text, bool) else _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size (write 16Gi, 500M or a number of bytes)")
    base = 1024 if match[3] else 1000
    try:
        return int(float(match[1]) * base ** _POWER[match[2].lower()])
    except OverflowError as error:
        raise ValueError(f"{text!r} is more than any machine has") from error


def format_seconds(seconds: float) -> str:
    """Format a duration: ``8 ms``, ``0.4 s``, ``3 min``, ``1 h 5 min``, ``2 d``."""
    if 0 < seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def format_moment(text: str) -> str:
    """Format an ISO 8601 moment in local time: ``12:01``, dated unless today."""
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        return text
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")


def format_bytes(size: float) -> str:
    """Format a size in binary units: ``512 B``, ``1.5 KiB``, ``23.4 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
