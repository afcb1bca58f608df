"""The manifest: the record, written last, that makes an output good.

An output is good when its manifest is there, was made by the same identity, and describes the
bytes that lie at the output's path. Manifests are JSON, versioned, and replaced atomically.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from lightcone.spec.output import MANIFEST
from lightcone.state.fingerprint import UNTRUSTED, Data, Stamp, difference, fingerprint, unchanged
from lightcone.system.files import flush_to_disk, make_directory, read_file, write_atomically

__all__ = [
    "MANIFEST_VERSION",
    "OLDER_VERSION",
    "UNOBSERVED",
    "Data",
    "Manifest",
    "Observed",
    "Provenance",
    "Source",
    "Stamp",
    "Unusable",
    "difference",
    "fingerprint",
    "inspect_manifest",
    "read_manifest",
    "stat_token",
    "unchanged",
    "write_manifest",
]


@dataclass(frozen=True, slots=True)
class Source:
    """One input when the output was made.

    Its text in the command, the version of its bytes, and, for an input that no output makes, the
    stamps of the files it consists of.
    """

    text: str
    version: str
    files: dict[str, Stamp] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a recipe was observed to use of the project, by paths from its root; "." is the root.

    Attributes:
        files: the files that it read; one without a hash, as earlier versions recorded, changed
            meanwhile.
        listings: the directories that it listed, with the names in them that count.
        missing: the paths that it looked for and did not find.
        written: the paths in ``listings`` that it wrote itself, which do not count.
    """

    files: dict[str, Stamp] = field(default_factory=dict)
    listings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.listings or self.missing)


UNOBSERVED = Observed()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Everything that determines an output, and nothing else.

    Attributes:
        command: the rendered command.
        template: the command as declared; kept to explain a difference, not part of the identity.
        container: the image, if any.
        files: the project's files that it depends on, by their path from the root.
        inputs: the declared inputs, by id.
        decisions: the declared decisions and their options.
        observed: what the recipe was observed to use besides.
    """

    command: str
    template: str
    container: str | None = None
    files: dict[str, Stamp] = field(default_factory=dict)
    inputs: dict[str, Source] = field(default_factory=dict)
    decisions: dict[str, str] = field(default_factory=dict)
    observed: Observed = UNOBSERVED

    @property
    def identity(self) -> str:
        """The SHA-256, in hexadecimal, of everything that determines the output."""
        determines: list[Any] = [
            self.command,
            self.container,
            sorted((name, stamp.sha256) for name, stamp in self.files.items()),
            sorted((name, source.version) for name, source in self.inputs.items()),
            sorted(self.decisions.items()),
        ]
        if self.observed:
            stamps, listings = self.observed.files, self.observed.listings
            determines += [
                sorted((name, stamp.sha256) for name, stamp in stamps.items()),
                sorted(listings.items()),
                sorted(self.observed.missing),
            ]
        return hashlib.sha256(json.dumps(determines).encode()).hexdigest()


MANIFEST_VERSION = 2
"""Version 2 has the ctime of each file; version 1 is read, and its files are compared by bytes."""

OLDER_VERSION = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of an output that was made: of a good one, unless it was ``disturbed``.

    Attributes:
        output: the qualified id.
        universe: the universe's name.
        identity: the identity of ``provenance`` when it was made.
        provenance: what it was made from.
        data: the bytes that were made.
        made: how it was made: ``started`` (ISO 8601, UTC), ``seconds``, ``host``, ``exit_code``
            and whatever else is worth recording; nothing in it decides anything.
        products: files that the command names and the recipe makes, and so no part of the
            identity of what the same recipe makes.
        disturbed: files of ``provenance``, by path, and inputs, by id, that changed while the
            recipe ran; where there are any the output is not good.
        version: of the format; ``OLDER_VERSION`` for a result of the older tool that is taken over.
    """

    output: str
    universe: str
    identity: str
    provenance: Provenance
    data: Data
    made: Mapping[str, Any] = field(default_factory=dict)
    products: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    version: int = MANIFEST_VERSION


@dataclass(frozen=True, slots=True)
class Unusable:
    """A manifest that cannot be used; ``reason`` follows "its manifest".

    The result of a newer ``lc`` (``is_newer``) may well be good.
    """

    reason: str
    is_newer: bool = False


def inspect_manifest(state_dir: str | Path) -> Manifest | Unusable | None:
    """Read the manifest in ``state_dir``: usable, unusable, or None if missing."""
    try:
        content = read_file(f"{state_dir}/{MANIFEST}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unusable(f"cannot be read ({error.strerror})")
    try:
        table = _decode(str(content, "utf-8"))
        if not isinstance(table, dict):
            return Unusable("is damaged")
        version = table.get("version")
        if isinstance(version, int) and version > MANIFEST_VERSION:
            return Unusable("was written by a newer lc", is_newer=True)
        return _parse(table)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Unusable("is damaged")


def read_manifest(state_dir: Path) -> Manifest | None:
    """Return the manifest in ``state_dir``, or None if none is usable."""
    manifest = inspect_manifest(state_dir)
    return manifest if isinstance(manifest, Manifest) else None


def stat_token(state_dir: Path) -> tuple[int, int] | None:
    """Return a token that changes whenever the output is set aside.

    It changes even where the output was restored; None where there is no manifest.
    """
    try:
        status = os.stat(state_dir / MANIFEST)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def write_manifest(state_dir: Path, manifest: Manifest, umask: int | None = None) -> None:
    """Replace the manifest in ``state_dir`` atomically and durably.

    Makes the directory if needed.

    Written last: once this returns the output is good, whatever happens next. The output's own
    bytes must have been flushed before. It is readable as ``umask``, by default this process's,
    allows: results are often shared with a group.

    Raises:
        OSError: where it cannot be written; the manifest before it is then still in place.
    """
    content = json.dumps(_table(manifest), indent=1).encode() + b"\n"
    if make_directory(state_dir):
        flush_to_disk(state_dir.parent)
    write_atomically(state_dir / MANIFEST, content, mode=0o666, umask=umask)


def _table(manifest: Manifest) -> dict[str, Any]:
    provenance = manifest.provenance
    optional = {"products": manifest.products, "disturbed": manifest.disturbed}
    return {
        "version": manifest.version,
        "output": manifest.output,
        "universe": manifest.universe,
        "identity": manifest.identity,
        "parts": {
            "command": provenance.command,
            "template": provenance.template,
            "container": provenance.container,
            "files": _stamps_table(provenance.files),
            "inputs": {
                name: {
                    "text": source.text,
                    "version": source.version,
                    "files": _stamps_table(source.files),
                }
                for name, source in provenance.inputs.items()
            },
            "decisions": provenance.decisions,
            **({"observed": _observed_table(provenance.observed)} if provenance.observed else {}),
        },
        "data": {"version": manifest.data.version, "files": _stamps_table(manifest.data.files)},
        "made": dict(manifest.made),
    } | {name: list(files) for name, files in optional.items() if files}


def _observed_table(observed: Observed) -> dict[str, Any]:
    return {
        "files": _stamps_table(observed.files),
        "listings": observed.listings,
        "missing": observed.missing,
        "written": observed.written,
    }


def _stamps_table(stamps: Mapping[str, Stamp]) -> dict[str, dict[str, Any]]:
    return {name: stamp._asdict() for name, stamp in stamps.items()}


def _parse(table: dict[str, Any]) -> Manifest:
    if table["version"] not in _STAMP_FIELDS:
        raise ValueError("an unknown version")
    fields = _STAMP_FIELDS[table["version"]]
    provenance, data, made = table["parts"], table["data"], table["made"]
    if not isinstance(made, dict):
        raise ValueError("'made' is no mapping")
    output, universe, identity = table["output"], table["universe"], table["identity"]
    command, template, container = (
        provenance["command"],
        provenance["template"],
        provenance["container"],
    )
    _check_texts(output, universe, identity, command, template, data["version"])
    if container is not None:
        _check_texts(container)
    decisions = provenance["decisions"]
    _check_texts(*decisions.values())
    inputs = {}
    for name, source in provenance["inputs"].items():
        text, version = source["text"], source["version"]
        _check_texts(text, version)
        inputs[name] = Source(text, version, _shared_stamps(source["files"], fields))
    files = _shared_stamps(provenance["files"], fields)
    observed = UNOBSERVED
    if "observed" in provenance:
        observed = _observed(provenance["observed"], fields)
    return Manifest(
        output,
        universe,
        identity,
        Provenance(command, template, container, files, inputs, decisions, observed),
        Data(
            data["version"],
            {name: _stamp(*fields(stamp)) for name, stamp in data["files"].items()},
        ),
        made,
        _name_list(table, "products"),
        _name_list(table, "disturbed"),
    )


def _check_texts(*values: object) -> None:
    for value in values:
        if type(value) is not str:
            raise ValueError(f"{value!r} is no text")


def _name_list(table: dict[str, Any], key: str) -> tuple[str, ...]:
    names = table.get(key)
    if names is None:
        return ()
    if not isinstance(names, list):
        raise ValueError(f"'{key}' is no list")
    _check_texts(*names)
    return tuple(names)


def _observed(table: dict[str, Any], fields: Callable[[Any], tuple[Any, ...]]) -> Observed:
    return Observed(
        _shared_stamps(table["files"], fields),
        {name: _name_list(table["listings"], name) for name in table["listings"]},
        _name_list(table, "missing"),
        _name_list(table, "written"),
    )


def _shared_stamps(
    table: dict[str, Any], fields: Callable[[Any], tuple[Any, ...]]
) -> dict[str, Stamp]:
    """Parse the stamps of files, sharing equal ones between outputs.

    A plan holds tens of thousands.
    """
    return {name: _shared_stamp(*fields(stamp)) for name, stamp in table.items()}


def _stamp(
    size: object, mtime_ns: object, inode: object, sha256: object, ctime_ns: object = UNTRUSTED
) -> Stamp:
    if type(size) is type(mtime_ns) is type(inode) is type(ctime_ns) is int and type(sha256) is str:
        return Stamp(size, mtime_ns, inode, sha256, ctime_ns)
    raise ValueError("a stamp has no numbers")


_decode = json.JSONDecoder().decode

_STAMP_FIELDS = {
    1: itemgetter("size", "mtime_ns", "inode", "sha256"),
    MANIFEST_VERSION: itemgetter("size", "mtime_ns", "inode", "sha256", "ctime_ns"),
}

_shared_stamp = lru_cache(maxsize=1 << 12, typed=True)(_stamp)
