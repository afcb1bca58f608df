"""Results of the older tool (lightcone-cli 0.4), and whether what it recorded of them still holds.

It kept one manifest inside each output's directory: the recipe as declared, the container as
declared, the options of the declared decisions, a hash of the output's bytes, and for each input
either the hash of a directory or the time and size of a file. It knew nothing of scripts. What it
recorded decides; what it did not is taken as it is now.

Bytes are only read where something in a tree is newer than the record of it, for a plan is to be
quick; :func:`judge` reads them all when asked to be ``thorough``, as it is before a result is
taken over for good.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.analysis.manifest import OLDER, Data, Manifest, Parts, Unusable
from lightcone.analysis.output import Input, Output

__all__ = ["OLD_MANIFEST", "Older", "as_manifest", "find", "judge"]

OLD_MANIFEST = ".lightcone-manifest.json"

_SCHEMA = 1
_NOT_HASHED = frozenset({OLD_MANIFEST, ".snakemake_timestamp"})
# Its directory is written to once more after the manifest, by what had called the older tool.
_AFTERWARDS_NS = 60 * 10**9
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Older:
    """What the older tool recorded; ``written_ns`` is the time of the record itself."""

    output: str
    universe: str
    recipe: str
    container: str | None
    decisions: dict[str, Any]
    inputs: dict[str, str]
    data: str
    made: dict[str, Any]
    written_ns: int


def find(output: Output) -> Older | Unusable | None:
    """What the older tool recorded of an output, why that cannot be used, or None."""
    if not output.is_directory:
        return None
    try:
        with open(os.path.join(output.path, OLD_MANIFEST), "rb") as file:
            written_ns = os.fstat(file.fileno()).st_mtime_ns
            table = json.loads(file.read())
        found = _parse(table, written_ns)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unusable(f"cannot be read ({error.strerror})")
    except (ValueError, KeyError, TypeError, RecursionError):
        return Unusable("is damaged")
    names_an_image = found.container is None or not (output.root / found.container).is_file()
    if names_an_image and table.get("code_version") != _code_version(found):
        return Unusable("was changed by hand")
    return found


def as_manifest(output: Output, found: Older, parts: Parts) -> Manifest:
    """A result of the older tool as if we had made it of ``parts``; its files have no stamps."""
    return Manifest(
        output.id,
        output.universe,
        parts.identity,
        parts,
        Data(found.data),
        found.made,
        version=OLDER,
    )


def judge(
    output: Output,
    found: Older,
    produced: Mapping[str, str | None],
    versions: dict[str, str],
    *,
    thorough: bool = False,
) -> list[str]:
    """What no longer holds of what was recorded, one phrase for each.

    Args:
        output: the output as it is declared now.
        found: the record.
        produced: the inputs that outputs make, with None for what is not good.
        versions: the hashes of directories that were computed already, for others to come.
        thorough: whether all bytes are read.
    """
    if (found.universe, found.output) != (output.universe, output.id.rpartition(".")[2]):
        return [f"its manifest is that of {found.universe}/{found.output}"]
    reasons = []
    since_ns = -1 if thorough else found.written_ns
    if found.recipe.strip() != output.template.strip():
        reasons.append("recipe changed")
    if found.container != output.container:
        reasons.append(f"container: {found.container or 'none'} → {output.container or 'none'}")
    elif _is_newer(output.root, output.container, found.written_ns):
        reasons.append(f"{output.container} changed")
    chosen = dict(output.decisions)
    for name, option in found.decisions.items():
        if not _is_option(option, chosen.get(name), f"{{decisions.{name}}}" in output.template):
            reasons.append(f"decision {name}: {option} → {chosen.get(name) or 'none'}")
    for given in output.inputs:
        version = found.inputs.get(given.id)
        if version is None:
            reasons.append(f"input {given.id} was added")
        elif given.id in produced:
            if produced[given.id] and not _is_made_as(given, version, since_ns, versions):
                reasons.append(f"input {given.id} was remade")
        elif not _is_same(given.path, version, since_ns, versions):
            reasons.append(f"input {given.id} changed or was touched ({given.text})")
    declared = {given.id for given in output.inputs}
    reasons += [f"input {name} was removed" for name in found.inputs if name not in declared]
    if not _is_same(output.path, found.data, since_ns, versions):
        reasons.append(f"{os.path.relpath(output.path, output.root)} was changed")
    return reasons


def _parse(table: dict[str, Any], written_ns: int) -> Older:
    if table["schema_version"] != _SCHEMA:
        raise ValueError("an unknown version")
    container, finished = table["container_image"], table.get("finished_at")
    started = None
    if isinstance(finished, float):
        started = datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds")
    found = Older(
        output=table["output_id"],
        universe=table["universe_id"],
        recipe=table["recipe"],
        container=container,
        decisions=dict(table["decisions"]),
        inputs=dict(table["input_versions"]),
        data=table["data_version"],
        made={
            "by": f"lightcone-cli {table.get('lc_version')}",
            "finished": started,
            "host": table.get("host"),
        },
        written_ns=written_ns,
    )
    texts = [found.output, found.universe, found.recipe, found.data, *found.inputs.values()]
    if not all(isinstance(text, str) for text in [*texts, container or ""]):
        raise ValueError("what should be text is none")
    return found


def _code_version(found: Older) -> str:
    determines = {
        "recipe": found.recipe,
        "container_image": found.container,
        "decisions": found.decisions,
    }
    text = json.dumps(determines, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _is_option(recorded: object, chosen: str | None, in_command: bool) -> bool:
    """Whether a recorded option, a value of YAML's, is the text that is chosen today."""
    if chosen is None or str(recorded) == chosen:
        return chosen is not None
    if in_command:  # which had the value, and would have the text
        return False
    import yaml

    try:
        value = yaml.safe_load(chosen)
    except yaml.YAMLError:
        return False
    return type(value) is type(recorded) and bool(value == recorded)


def _is_newer(root: Path, container: str | None, written_ns: int) -> bool:
    """Whether the file that a container is built from was written to since."""
    if container is None:
        return False
    try:
        found = os.stat(root / container)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime_ns > written_ns


def _is_made_as(given: Input, version: str, since_ns: int, versions: dict[str, str]) -> bool:
    """Whether an output that is good has the bytes it had; its own older record says so too."""
    if given.path is None:
        return False
    try:
        recorded = json.loads((given.path / OLD_MANIFEST).read_bytes())
        if recorded["data_version"] == version:
            return True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return _is_same(given.path, version, -1, versions)


def _is_same(path: Path | None, version: str, since_ns: int, versions: dict[str, str]) -> bool:
    """Whether what lies at ``path`` is still what was recorded, unread if older than ``since_ns``."""
    if path is None:
        return False
    try:
        top = os.stat(path)
        if version.startswith("mtime-size:"):
            return version == f"mtime-size:{top.st_mtime_ns}-{top.st_size}"
        if stat.S_ISDIR(top.st_mode) and _newest(path, top) <= since_ns:
            return True
        key = os.fspath(path)
        if key not in versions:
            versions[key] = _hash_tree(key) if stat.S_ISDIR(top.st_mode) else _hash_file(key)
        return versions[key] == version
    except OSError:
        return version == "missing" and not os.path.lexists(path)


def _newest(path: Path, top: os.stat_result) -> int:
    newest = top.st_mtime_ns - _AFTERWARDS_NS
    for directory, names, files in os.walk(path):
        for name in [*names, *files]:
            if name not in _NOT_HASHED:
                newest = max(newest, os.stat(os.path.join(directory, name)).st_mtime_ns)
    return newest


def _hash_tree(top: str) -> str:
    """The older tool's hash of a directory: the names and bytes of its files, by name."""
    names = {}
    for directory, _, files in os.walk(top):
        for file in files:
            full = os.path.join(directory, file)
            if file not in _NOT_HASHED and os.path.isfile(full):
                names[os.path.relpath(full, top)] = full
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(b"path:" + os.fsencode(name) + b"\0data:")
        _update(digest, names[name])
        digest.update(b"\0")
    return f"sha256:{digest.hexdigest()}"


def _hash_file(path: str) -> str:
    digest = hashlib.sha256()
    _update(digest, path)
    return f"sha256:{digest.hexdigest()}"


def _update(digest: Any, path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
