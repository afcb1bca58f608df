"""The manifest: the record, written last, that makes an output a good one.

An output is good when its manifest is there, was made by the same identity, and describes the
bytes that lie at the output's path. Manifests are JSON, versioned, and replaced atomically.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightcone.analysis.fingerprint import (
    Data,
    Stamp,
    difference,
    fingerprint,
    flush,
    unchanged,
)
from lightcone.files import fsync_directory, write_atomically

__all__ = [
    "MANIFEST",
    "OLDER",
    "VERSION",
    "Data",
    "Manifest",
    "Parts",
    "Source",
    "Stamp",
    "Unusable",
    "difference",
    "fingerprint",
    "flush",
    "inspect",
    "read",
    "unchanged",
    "write",
]

MANIFEST = "manifest.json"
VERSION = 1
OLDER = 0
_USUALLY_ENOUGH = 1 << 14


@dataclass(frozen=True, slots=True)
class Source:
    """What one input was: its text in the command, the version of its bytes, and, for one that
    no output makes, the stamps of the files it consists of."""

    text: str
    version: str
    files: dict[str, Stamp] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that determines an output, and nothing else.

    Attributes:
        command: the rendered command.
        template: the command as declared; kept to explain a difference, not part of the identity.
        container: the image, if any.
        files: the project's files that the command names, by their path from the root.
        inputs: the declared inputs, by id.
        decisions: the declared decisions and their options.
    """

    command: str
    template: str
    container: str | None = None
    files: dict[str, Stamp] = field(default_factory=dict)
    inputs: dict[str, Source] = field(default_factory=dict)
    decisions: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of what determines the output."""
        determines = [
            self.command,
            self.container,
            sorted((name, stamp.sha256) for name, stamp in self.files.items()),
            sorted((name, source.version) for name, source in self.inputs.items()),
            sorted(self.decisions.items()),
        ]
        return hashlib.sha256(json.dumps(determines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of a good output.

    Attributes:
        output: the qualified id.
        universe: the universe's name.
        identity: the identity of ``parts`` when it was made.
        parts: what it was made from.
        data: the bytes that were made.
        made: how it was made: ``started`` (ISO 8601, UTC), ``seconds``, ``host``, ``exit_code``
            and whatever else is worth recording; nothing in it decides anything.
        products: files that the command names and the recipe makes, and so no part of the
            identity of what the same recipe makes.
        disturbed: files of ``parts`` that changed while the recipe ran.
        version: of the format; ``OLDER`` for a result of the older tool that is taken over.
    """

    output: str
    universe: str
    identity: str
    parts: Parts
    data: Data
    made: Mapping[str, Any] = field(default_factory=dict)
    products: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Unusable:
    """A manifest that is there and says nothing: ``reason`` reads after "its manifest"."""

    reason: str


def inspect(state_dir: Path) -> Manifest | Unusable | None:
    """The manifest in ``state_dir``, why it cannot be used, or None where there is none."""
    path = os.path.join(state_dir, MANIFEST)
    try:
        content = _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unusable(f"cannot be read ({error.strerror})")
    try:
        table = json.loads(content)
        if not isinstance(table, dict):
            return Unusable("is damaged")
        version = table.get("version")
        if isinstance(version, int) and version > VERSION:
            return Unusable("was written by a newer lc")
        return _parse(table)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Unusable("is damaged")


def read(state_dir: Path) -> Manifest | None:
    """The manifest in ``state_dir``, or None where there is none that can be used."""
    found = inspect(state_dir)
    return found if isinstance(found, Manifest) else None


def write(state_dir: Path, manifest: Manifest) -> None:
    """Replace the manifest in ``state_dir`` atomically and durably, making the directory.

    Written last: once this returns the output is good, whatever happens next. The output's own
    bytes must have been flushed before.

    Raises:
        OSError: where it cannot be written; the manifest before it is then still in place.
    """
    content = json.dumps(_table(manifest), indent=1).encode() + b"\n"
    _make_durably(state_dir)
    # Readable as the umask allows: results are often shared with a group.
    write_atomically(state_dir / MANIFEST, content, mode=0o666)


def _read(path: str) -> bytes:
    """A file's content with as few calls as can be: a plan reads tens of thousands."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, _USUALLY_ENOUGH)
        if len(content) == _USUALLY_ENOUGH:
            while more := os.read(descriptor, 1 << 20):
                content += more
        return content
    finally:
        os.close(descriptor)


def _make_durably(directory: Path) -> None:
    try:
        os.mkdir(directory)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_durably(directory.parent)
        os.makedirs(directory, exist_ok=True)
    fsync_directory(directory.parent)


def _table(manifest: Manifest) -> dict[str, Any]:
    parts = manifest.parts
    seldom = {"products": manifest.products, "disturbed": manifest.disturbed}
    return {
        "version": manifest.version,
        "output": manifest.output,
        "universe": manifest.universe,
        "identity": manifest.identity,
        "parts": {
            "command": parts.command,
            "template": parts.template,
            "container": parts.container,
            "files": _stamps_table(parts.files),
            "inputs": {
                name: {
                    "text": source.text,
                    "version": source.version,
                    "files": _stamps_table(source.files),
                }
                for name, source in parts.inputs.items()
            },
            "decisions": parts.decisions,
        },
        "data": {"version": manifest.data.version, "files": _stamps_table(manifest.data.files)},
        "made": dict(manifest.made),
    } | {name: list(files) for name, files in seldom.items() if files}


def _stamps_table(stamps: Mapping[str, Stamp]) -> dict[str, dict[str, Any]]:
    return {name: stamp._asdict() for name, stamp in stamps.items()}


def _parse(table: dict[str, Any]) -> Manifest:
    if table["version"] != VERSION:
        raise ValueError("an unknown version")
    parts, data, made = table["parts"], table["data"], table["made"]
    if not isinstance(made, dict):
        raise ValueError("'made' is no mapping")
    container = parts["container"]
    return Manifest(
        output=_text(table["output"]),
        universe=_text(table["universe"]),
        identity=_text(table["identity"]),
        parts=Parts(
            command=_text(parts["command"]),
            template=_text(parts["template"]),
            container=None if container is None else _text(container),
            files=_stamps(parts["files"]),
            inputs={
                name: Source(
                    _text(source["text"]), _text(source["version"]), _stamps(source["files"])
                )
                for name, source in parts["inputs"].items()
            },
            decisions={name: _text(option) for name, option in parts["decisions"].items()},
        ),
        data=Data(_text(data["version"]), _stamps(data["files"])),
        made=made,
        products=_texts(table.get("products")),
        disturbed=_texts(table.get("disturbed")),
    )


def _text(value: object) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is no text")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list):
        raise ValueError(f"{values!r} is no list")
    return tuple(_text(value) for value in values)


def _stamps(table: dict[str, Any]) -> dict[str, Stamp]:
    stamps = {}
    for name, stamp in table.items():
        size, mtime_ns, inode = stamp["size"], stamp["mtime_ns"], stamp["inode"]
        if not (type(size) is type(mtime_ns) is type(inode) is int):
            raise ValueError(f"the stamp of {name!r} has no numbers")
        stamps[name] = Stamp(size, mtime_ns, inode, _text(stamp["sha256"]))
    return stamps
