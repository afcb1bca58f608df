"""Sources of inputs that no recipe makes: paths, patterns and texts.

One rule decides which of these a source is, for planning, hashing and the command alike. In order:

1. With ``://`` in it, it is a text, for instance a URL; its variables are filled in.
2. The name of something that exists, exactly as written, is that path: ``data/a*.csv``, too.
3. Else a leading ``~``, ``$NAME`` and ``${NAME}`` are filled in. An unset variable is an error.
4. If something is there now, it is that path.
5. With ``*``, ``?`` or ``[...]``, it is a pattern: all paths that match it now, sorted. One that
   matches nothing is a missing path where it is a path beyond doubt, else a text.
6. A path beyond doubt has to be there before a recipe that needs it runs. Beyond doubt is what
   begins with ``/``, ``./`` or ``../``, and, of letters, digits and ``_@%+=./~*?[]!^-`` alone, what
   is in a directory that exists, or ends as files of data do (``.csv``), unless what is before its
   first ``/`` could be a host.
7. Any other is a text: a DOI, the name of a survey. What a recipe makes of it is its own affair.

A sentence, that is several words that do not begin as a path does, may have an unset variable: it
is a text unless it leads to something. A relative path starts at the project's directory, else at
the directory of its analysis.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lightcone.spec.output import Output
from lightcone.spec.tree import Scope, Tree

__all__ = ["InputSources", "Location", "is_pattern", "match_again"]

_LIKE_A_PATH = re.compile(r"[\w@%+=:,./~-]+")
_PLAIN = re.compile(r"[\w@%+=./~*?\[\]!^-]+")
_PATTERN = re.compile(r"[*?]|\[[^/]+\]")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)
_BLANK = re.compile(r"\s")
_PATH_PREFIXES = ("/", "./", "../")
_BEGINNINGS = (*_PATH_PREFIXES, "~", "$")
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
        text: what records and messages call it: the source, or its path from the root.
        words: what a command receives for it; empty for a pattern that matches nothing.
        path: its absolute path, existing or not; None for a pattern and for what is no path.
        certain: whether it is a path or a pattern beyond doubt.
        pattern: the pattern, from the root.
        unset: the variables in it that are not set.
        is_name: whether it is the name of something that exists, exactly as written.
    """

    text: str
    words: tuple[str, ...]
    path: str | None
    certain: bool
    pattern: str | None = None
    unset: tuple[str, ...] = ()
    is_name: bool = False


class InputSources:
    """Cached lookup of the sources of one analysis's inputs."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._root = str(tree.root)
        self._root_prefix = f"{tree.root}/"
        self._cache: dict[tuple[Scope, str], Location] = {}

    def find(self, scope: Scope, source: str) -> Location:
        """Locate ``source``, as declared in the analysis at ``scope``."""
        home = self._tree.home(scope)
        if (home, source) not in self._cache:
            self._cache[home, source] = self._look_up(home, source.strip())
        return self._cache[home, source]

    def _look_up(self, home: Scope, source: str) -> Location:
        # Commands run in the root, and so the sources of today's projects are meant from there.
        bases = [self._root, str(self._tree.directories[home])]
        is_url = "://" in source
        path = None if is_url else _existing(bases, source)
        if path is not None:
            relative = path.removeprefix(self._root_prefix)
            text = source if os.path.normpath(source) == relative else relative
            return Location(text, (text,), path, True, is_name=True)
        filled, unset = _fill_in(source)
        is_sentence = _BLANK.search(source) is not None and not source.startswith(_BEGINNINGS)
        if unset and (is_url or not is_sentence):
            return Location(source, (source,), None, True, unset=unset)
        if is_url:
            return Location(source, (filled,), None, False)
        path = _existing(bases, filled)
        if path is not None:
            from_root = os.path.normpath(os.path.join(self._root, filled)) == path
            return Location(
                source, (filled if from_root else path.removeprefix(self._root_prefix),), path, True
            )
        certain = filled.startswith(_PATH_PREFIXES) or (
            _PLAIN.fullmatch(filled) is not None
            and (
                any(os.path.isdir(os.path.join(base, filled.split("/")[0])) for base in bases)
                or _is_data(filled)
            )
        )
        if is_pattern(source):
            return self._match(source, bases, certain)
        if certain or _LIKE_A_PATH.fullmatch(filled):
            path = os.path.normpath(os.path.join(self._root, filled))
        return Location(source, (source if is_sentence else filled,), path, certain)

    def _match(self, source: str, bases: list[str], certain: bool) -> Location:
        escaped, _ = _fill_in(source, glob.escape)
        for base in bases:
            above = f"{base}/".removeprefix(self._root_prefix)
            pattern = os.path.join(glob.escape(above), escaped)
            words = _matches(self._root, pattern)
            if words:
                return Location(os.path.join(above, source), words, None, True, pattern)
        return Location(source, (), None, certain, escaped)


def is_pattern(source: str) -> bool:
    """Return whether a source is a pattern, unless something has exactly that name."""
    return _PATTERN.search(source) is not None


def match_again(output: Output) -> Output:
    """Return ``output`` with all that the patterns among its sources match by now."""
    if all(given.pattern is None for given in output.inputs):
        return output
    inputs = [
        given
        if given.pattern is None
        else replace(given, words=_matches(output.root, given.pattern))
        for given in output.inputs
    ]
    return replace(output, inputs=tuple(inputs))


def _matches(root: str | Path, pattern: str) -> tuple[str, ...]:
    return tuple(sorted(glob.glob(pattern, root_dir=root)))


def _existing(bases: list[str], name: str) -> str | None:
    """Return the absolute path of what exists at ``name``, from the first base that has it."""
    for base in bases:
        path = os.path.normpath(os.path.join(base, name))
        if os.path.lexists(path):
            return path
    return None


def _fill_in(
    source: str, quote: Callable[[str], str] = lambda value: value
) -> tuple[str, tuple[str, ...]]:
    """Fill in a leading ``~`` and the variables; return the unset variables, too."""
    unset = []

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            unset.append(name)
            return match[0]
        return quote(os.environ[name])

    home, slash, rest = source.partition("/")
    if home.startswith("~"):
        expanded = os.path.expanduser(home)
        source = (quote(expanded) if expanded != home else home) + slash + rest
    return _VARIABLE.sub(value, source), tuple(dict.fromkeys(unset))


def _is_data(path: str) -> bool:
    """Return whether a path ends like a data file, without a host or DOI."""
    first, slash, _ = path.partition("/")
    return _DATA.fullmatch(path) is not None and not (slash and "." in first.lstrip("."))
