"""The manifest: the record, written last, that makes an output a good one.

An output is good when its manifest is there, was made by the same identity, and describes the
bytes that lie at the output's path. Manifests are JSON, versioned, and replaced atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lightcone.analysis.fingerprint import (
    Data,
    Stamp,
    difference,
    fingerprint,
    unchanged,
)
from lightcone.analysis.flush import flush
from lightcone.analysis.parts import Parts, Source
from lightcone.files import flush_to_disk, write_atomically

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
    try:
        content = _read(f"{state_dir}/{MANIFEST}")
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
    flush_to_disk(directory.parent)


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
            files=_shared(parts["files"]),
            inputs={
                name: Source(
                    _text(source["text"]), _text(source["version"]), _shared(source["files"])
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
    return {
        name: _stamp(stamp["size"], stamp["mtime_ns"], stamp["inode"], stamp["sha256"])
        for name, stamp in table.items()
    }


def _shared(table: dict[str, Any]) -> dict[str, Stamp]:
    """As :func:`_stamps`, for files that many outputs have: a plan holds tens of thousands."""
    return {
        name: _same_stamp(stamp["size"], stamp["mtime_ns"], stamp["inode"], stamp["sha256"])
        for name, stamp in table.items()
    }


def _stamp(size: object, mtime_ns: object, inode: object, sha256: object) -> Stamp:
    if type(size) is int and type(mtime_ns) is int and type(inode) is int:
        return Stamp(size, mtime_ns, inode, _text(sha256))
    raise ValueError("a stamp has no numbers")


_same_stamp = lru_cache(maxsize=1 << 12, typed=True)(_stamp)
