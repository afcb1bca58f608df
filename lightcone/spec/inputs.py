"""Sources of inputs that no recipe makes: paths, patterns and others.

A source may be a path, a pattern of the shell's, or no such thing: a URL, a DOI, the name of a
survey, a sentence. One that is a path beyond doubt has to be there before a recipe that needs it
runs; of any other, what the recipe makes of it is its own affair. Beyond doubt is:

- what there is something at;
- what begins with ``/``, ``./`` or ``../``, once ``~`` and variables are filled in;
- else, of letters, digits and ``_@%+=./~*?-`` alone, what lies in a directory that there is, or
  ends as files of data do (``.csv``), unless what stands before its first ``/`` could be a host.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from lightcone.spec.tree import Scope, Tree

__all__ = ["InputSources", "Location"]

_LIKE_A_PATH = re.compile(r"[\w@%+=:,./~-]+")
_PLAIN = re.compile(r"[\w@%+=./~*?-]+")
_PATH_PREFIXES = ("/", "./", "../")
_DATA = re.compile(
    r".*\.(?:7z|arrow|avro|bin|bz2|cfg|csv|dat|db|dta|ecsv|feather|fit|fits|geojson|gz|h5|hdf|hdf5"
    r"|ini|ipynb|jpe?g|jsonl?|log|mat|md|nc|ndjson|np[yz]|ods|orc|parquet|pdf|pickle|pkl|png|py|r"
    r"|rda|rds|root|sav|sh|shp|sql|sqlite|svg|tar|tbl|tex|tgz|tiff?|toml|tsv|txt|vot|xlsx?|xml|xz"
    r"|ya?ml|zarr|zip|zst)",
    re.IGNORECASE,
)


class Location(NamedTuple):
    """The location of an input's source.

    Attributes:
        text: what a command gets for it.
        path: where it lies, absolute, or would; None for a pattern and for what is no path.
        certain: whether it is a path beyond doubt.
    """

    text: str
    path: str | None
    certain: bool


class InputSources:
    """Cached lookup of the sources of one analysis's inputs."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._root_prefix = f"{tree.root}/"
        self._cache: dict[tuple[Scope, str], Location] = {}

    def find(self, scope: Scope, source: str) -> Location:
        """Locate ``source``, as declared in the analysis at ``scope``."""
        home = self._tree.home(scope)
        if (home, source) not in self._cache:
            self._cache[home, source] = self._look_up(home, source.strip())
        return self._cache[home, source]

    def _look_up(self, home: Scope, source: str) -> Location:
        if "://" in source:
            return Location(source, None, False)
        expanded = os.path.expandvars(os.path.expanduser(source))
        # Commands run in the root, and so the sources of today's projects are meant from there.
        bases = (self._tree.root, self._tree.directories[home])
        for base in bases:
            candidate = os.path.normpath(os.path.join(base, expanded))
            if os.path.lexists(candidate):
                relative = candidate.removeprefix(self._root_prefix)
                as_written = expanded != source or os.path.normpath(source) == relative
                return Location(source if as_written else relative, candidate, True)
        certain = expanded.startswith(_PATH_PREFIXES) or (
            _PLAIN.fullmatch(expanded) is not None
            and (
                any(os.path.isdir(os.path.join(base, expanded.split("/")[0])) for base in bases)
                or _is_data(expanded)
            )
        )
        path = None
        if _LIKE_A_PATH.fullmatch(source) or (certain and not set("*?") & set(expanded)):
            path = os.path.normpath(os.path.join(self._tree.root, expanded))
        return Location(source, path, certain)


def _is_data(path: str) -> bool:
    """Return whether a path ends like a data file, without a host or DOI."""
    first, slash, _ = path.partition("/")
    return _DATA.fullmatch(path) is not None and not (slash and "." in first.lstrip("."))
