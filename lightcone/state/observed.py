"""What a recipe was observed to use: which of it counts, and what is there now.

Of the paths in the project that a recipe used, these count from then on: files that it read,
directories that it listed, and paths that it looked for and did not find. Its inputs and its
output are compared anyway, and what it wrote itself is its product.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from lightcone.errors import SpecError
from lightcone.spec.layout import STATE
from lightcone.spec.output import Output
from lightcone.state.dependencies import SourceFiles
from lightcone.state.fingerprint import Stamp
from lightcone.state.imports import is_script
from lightcone.state.manifest import Observed, Provenance

__all__ = ["Selection", "Trace", "observed_now", "select", "status_time", "with_parents"]

_CODE = re.compile(
    r".*\.(?:r|jl|m|pl|pm|lua|rb|js|stan|c|cc|cpp|h|hpp|f|f90|so(?:\.[\d.]+)?|dylib|pyd|pyi|pyx"
    r"|ipynb|mk|toml|cfg|ini|ya?ml)",
    re.IGNORECASE,
)


@dataclass
class Trace:
    """The paths in the project that a recipe's processes used, by their names from its root.

    Attributes:
        read: what they opened for reading, or executed.
        programs: what they executed.
        listed: the directories that they listed.
        missing: what they looked for and did not find.
        written: what they opened for writing, made, moved away or removed.
        entries: for each directory, the names in it when it was listed first, with their ctime.
        touched: the files whose status they changed, but no bytes; with the ctime after that where
            they set the file's times, else 0.
    """

    read: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    entries: dict[str, dict[str, int]] = field(default_factory=dict)
    touched: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """What counts of a trace.

    Attributes:
        observed: what joins the provenance.
        results: the files of other outputs that it read without declaring them.
        data: the other files that it read and that are no code, no declared input and not named.
        changed: the paths that changed, came or went while the recipe ran, not by its own doing.
    """

    observed: Observed
    results: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def select(
    trace: Trace, output: Output, provenance: Provenance, since: int, sources: SourceFiles
) -> Selection:
    """Select what counts of ``trace``, with its stamps.

    Args:
        trace: what was seen.
        output: the output that the recipe has made.
        provenance: what was known to determine it when it was planned.
        since: the time of the file system, in nanoseconds, when the recipe began.
        sources: the project's files as they are now.

    Raises:
        SpecError: where a file that the recipe read cannot be read.
    """
    root = f"{output.root}/"
    is_input = _inputs(output, provenance)

    def time_of(name: str) -> int | None:
        try:
            return os.lstat(root + name).st_ctime_ns
        except OSError:
            return None

    def is_own(name: str) -> bool:
        if not any(each in trace.written for each in with_parents(name)):
            return False
        changed = time_of(name)
        return changed is None or changed >= since

    def counts(name: str) -> bool:
        return (
            sources.directories.counts(name)
            and not _is_at(name, output.display_path)
            and not is_input(name, False)
        )

    def is_as_before(name: str, sha256: str) -> bool:
        """Return whether a file that was read surely had the same bytes when the recipe began."""
        planned, changed = provenance.observed.files.get(name), status_time(root + name)
        if changed is None or changed < since or (planned and planned.sha256 == sha256):
            return changed is not None
        touched = trace.touched.get(name)
        # Where the recipe itself has changed its status, its times show other changes.
        return touched is not None and (
            changed == touched or os.stat(root + name).st_mtime_ns < since
        )

    def was_listed(directory: str, name: str, path: str) -> bool:
        """Return whether a name that is in a directory was surely there when it was listed."""
        now = time_of(path)
        if now is None or now < since or path in trace.touched:
            return True
        if name in provenance.observed.listings.get(directory, ()):
            return True
        is_directory = os.path.isdir(root + path)
        then = trace.entries.get(directory, {}).get(name)
        # The time of a directory says when names in it came and went.
        return (
            is_directory
            if directory not in trace.entries
            else (then is not None and (is_directory or then < since))
        )

    files: dict[str, Stamp] = {}
    changed: set[str] = set()
    for name in sorted(trace.read):
        if name in provenance.files or not counts(name) or is_own(name):
            continue
        if not os.path.exists(root + name):
            changed.add(name)
        if not os.path.isfile(root + name):
            continue
        stamp = sources.file(name, output)
        if stamp is None:
            continue
        files[name] = stamp
        if not is_as_before(name, stamp.sha256):
            changed.add(name)
    missing = [
        name
        for name in sorted(trace.missing)
        if sources.scanner.is_source(name) and counts(name) and not is_own(name)
    ]
    changed.update(name for name in missing if os.path.exists(root + name))
    listed = [
        name
        for name in sorted(trace.listed)
        if counts(name) and not is_input(name, True) and not is_own(name)
    ]
    listings, written = {}, []
    for directory in listed:
        above = "" if directory == "." else f"{directory}/"
        names = []
        for name in sources.directories.names_in(directory):
            path = above + name
            if path == output.display_path or is_own(path):
                written.append(path)
                continue
            names.append(name)
            if not was_listed(directory, name, path):
                changed.add(path)
        listings[directory] = tuple(names)
        for name, time in trace.entries.get(directory, {}).items():
            path = above + name
            if time < since and counts(path) and time_of(path) is None and not is_own(path):
                changed.add(path)
    others = tuple(name for name in files if not sources.scanner.is_source(name))
    data = tuple(
        name
        for name in files
        if name not in others and name not in trace.programs and not _is_code(name)
    )
    observed = Observed(files, listings, tuple(missing), tuple(written))
    return Selection(observed, others, data, tuple(sorted(changed)))


def status_time(path: str) -> int | None:
    """Return when the status of a file, or of a link to it, last changed; None without one."""
    try:
        return max(os.stat(path).st_ctime_ns, os.lstat(path).st_ctime_ns)
    except OSError:
        return None


def with_parents(name: str) -> Iterable[str]:
    """Yield a path and every directory above it, but the root."""
    while name and name != ".":
        yield name
        name = name.rpartition("/")[0]


def observed_now(before: Observed, sources: SourceFiles, output: Output) -> Observed:
    """Return what ``before`` describes, as it is now; the same object where nothing changed."""
    key = (*before.files.items(), *before.listings.items(), before.missing, before.written)
    now = sources.observed.get(key)
    if now is None:
        now = sources.observed[key] = _look_again(before, sources, output)
    return before if now == before else now


def _look_again(before: Observed, sources: SourceFiles, output: Output) -> Observed:
    files, listings, missing = {}, {}, []
    for name in (*before.files, *before.missing):
        if sources.directories.is_directory(name):
            listings[name] = _names(name, before, sources)
            continue
        stamp = sources.file(name, output)
        if stamp is not None:
            files[name] = stamp
        else:
            missing.append(name)
    for name in before.listings:
        if not sources.directories.is_directory(name):
            missing.append(name)
            continue
        listings[name] = _names(name, before, sources)
        for each in sorted(set(listings[name]) - set(before.listings[name])):
            # A recipe that lists a directory may well read a new file in it.
            path = each if name == "." else f"{name}/{each}"
            stamp = None if path in files else _stamp_of_new(path, sources, output)
            if stamp is not None:
                files[path] = stamp
    return Observed(files, listings, tuple(missing), before.written)


def _stamp_of_new(name: str, sources: SourceFiles, output: Output) -> Stamp | None:
    if not sources.scanner.is_source(name) or not os.path.isfile(sources.root / name):
        return None
    try:
        return sources.file(name, output)
    except SpecError:  # the recipe may do without it
        return None


def _names(directory: str, before: Observed, sources: SourceFiles) -> tuple[str, ...]:
    names = sources.directories.names_in(directory)
    if not before.written:
        return names
    prefix = "" if directory == "." else f"{directory}/"
    return tuple(name for name in names if prefix + name not in before.written)


def _inputs(output: Output, provenance: Provenance) -> Callable[[str, bool], bool]:
    """Return whether a path, or the listing of a directory, is part of a declared input."""
    root = f"{output.root}/"
    places: set[str] = set()
    matched: set[str] = set()
    patterns = []
    for given in output.inputs:
        for place in (given.place, given.text):
            if place:
                path = os.path.normpath(os.path.join(output.root, place))
                places |= {each.removeprefix(root) for each in (path, os.path.realpath(path))}
        if given.producer is None and ("*" in given.text or "?" in given.text):
            text = os.path.expandvars(os.path.expanduser(given.text))
            pattern = os.path.normpath(os.path.join(output.root, text)).removeprefix(root)
            patterns.append(pattern.split("/"))
            source = provenance.inputs.get(given.id)
            matched |= source.files.keys() if source is not None else set()

    def is_input(name: str, is_listing: bool) -> bool:
        if name in matched or any(each in places for each in with_parents(name)):
            return True
        words = [] if name == "." else name.split("/")
        return is_listing and any(_is_expanded(words, pattern) for pattern in patterns)

    return is_input


def _is_expanded(words: list[str], pattern: list[str]) -> bool:
    """Return whether a shell lists the directory ``words`` to expand ``pattern``."""
    if len(words) >= len(pattern) or not any(each in pattern[len(words)] for each in "*?["):
        return False
    return all(fnmatchcase(word, each) for word, each in zip(words, pattern, strict=False))


def _is_at(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")


def _is_code(name: str) -> bool:
    return is_script(name) or _CODE.fullmatch(name) is not None or STATE in name.split("/")
