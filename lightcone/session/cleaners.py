"""Programs that remove from a directory what has not been used for long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["cleaning", "text_of"]

_TMPFILES = ("etc/tmpfiles.d", "run/tmpfiles.d", "usr/local/lib/tmpfiles.d", "usr/lib/tmpfiles.d")
_TIME_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}
_TIME = re.compile(r"(\d+)\s*([a-z]*)")


def cleaning(root: Path, place: Path) -> Iterator[tuple[str, Path, float]]:
    """Who removes what is at ``place``, from where, and from which age on, in seconds.

    The system's settings are looked for below ``root``.
    """
    lines = list(_lines_of_tmpfiles(root))
    spared = [words[1] for words in lines if words[0][:1] in "xX"]
    if not any(fnmatch(str(each), mask) for each in (place, *place.parents) for mask in spared):
        for words in lines:
            cleaned = words[0][:1] in "dDevqQ" and place.is_relative_to(words[1])
            if cleaned and len(words) > 5 and words[5] not in ("-", ""):
                yield "systemd-tmpfiles", Path(words[1]), _seconds(words[5].rpartition(":")[2])
    settings = text_of(root / "etc/tmpreaper.conf")
    if (root / "etc/cron.daily/tmpreaper").exists() and "\nSHOWWARNING=true" not in f"\n{settings}":
        age = re.search(r"^\s*TMPREAPER_TIME=['\"]?(\w+)", settings, re.MULTILINE)
        dirs = re.search(r"^\s*TMPREAPER_DIRS=['\"]?([^'\"\n]*)", settings, re.MULTILINE)
        for where in map(Path, (dirs[1] if dirs else "/tmp").split()):  # noqa: S108 (compared)
            if place.is_relative_to(where):
                yield "tmpreaper", where, _seconds(age[1] if age else "7d")
    for line in text_of(root / "etc/cron.daily/tmpwatch").splitlines():
        for unit, *paths in _ages(line.split()):
            for where in map(Path, paths):
                if where.is_absolute() and place.is_relative_to(where):
                    # Its own unit is the hour.
                    yield "tmpwatch", where, _seconds(unit if unit[-1].isalpha() else f"{unit}h")


def _ages(words: list[str]) -> Iterator[list[str]]:
    """Each word that is an age, with the words that follow it."""
    for position, word in enumerate(words):
        if re.fullmatch(r"\d+[dhms]?", word):
            yield words[position:]


def _lines_of_tmpfiles(root: Path) -> Iterator[list[str]]:
    seen: set[str] = set()
    for directory in _TMPFILES:
        for file in sorted((root / directory).glob("*.conf")):
            # One in /etc replaces the one of the same name that came with the system.
            if file.name not in seen:
                seen.add(file.name)
                lines = (line.split() for line in text_of(file).splitlines())
                yield from (words for words in lines if len(words) > 1 and words[0][0] != "#")


def _seconds(text: str) -> float:
    """A time span as systemd writes it, such as ``10d`` or ``1h 30min``; without unit, seconds."""
    parts = _TIME.findall(text.lower())
    return float(sum(int(number) * _TIME_UNITS.get(unit or "s", 1) for number, unit in parts))


def text_of(file: Path) -> str:
    """What a file of settings says; "" where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
