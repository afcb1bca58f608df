"""Results of the older tool (lightcone-cli 0.4), and whether what it recorded of them still holds.

It kept one manifest inside each output's directory: the recipe as declared, the container as
declared, the options of the declared decisions, a hash of the output's bytes, and for each input
either the hash of a directory or the time and size of a file. It knew nothing of scripts. What it
recorded decides; what it did not is taken as it is now.

For a plan, which is to be quick, a directory in which nothing is newer than the record is taken as
unchanged; before a result is taken over for good, all bytes are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightcone.spec.output import OLD_MANIFEST, Output
from lightcone.state.fingerprint import Data
from lightcone.state.manifest import OLDER_VERSION, Manifest, Provenance, Unusable
from lightcone.system.files import read_object

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["Older", "find_older", "is_made_as", "is_same", "older_as_manifest", "outdated_reasons"]

_NOT_HASHED = frozenset({OLD_MANIFEST, ".snakemake_timestamp"})

# An output's directory is written to once more after its record, by what called the older tool.
_AFTERWARDS_NS = 60 * 10**9

_CHUNK = 1 << 20


def is_same(path: Path | None, version: str, since_ns: int, versions: dict[str, str]) -> bool:
    """Whether what lies at ``path`` is still what was recorded as ``version``.

    A directory without anything newer than ``since_ns`` is not read; -1 has it read always.
    ``versions`` has the hashes that were computed already, by path.
    """
    if path is None:
        return False
    try:
        top = os.stat(path)
        if version.startswith("mtime-size:"):
            return version == f"mtime-size:{top.st_mtime_ns}-{top.st_size}"
        is_tree = stat.S_ISDIR(top.st_mode)
        if is_tree and _newest(path, top) <= since_ns:
            return True
        key = os.fspath(path)
        if key not in versions:
            versions[key] = _hash_tree(key) if is_tree else _hash_file(key)
        return versions[key] == version
    except OSError:
        return version == "missing" and not os.path.lexists(path)


def is_made_as(path: Path | None, version: str, versions: dict[str, str]) -> bool:
    """Whether an output that is known to be good has the bytes recorded as ``version``."""
    if path is None:
        return False
    with contextlib.suppress(OSError, ValueError, KeyError):
        # Its record goes with it when it is made again, so what is there is about these bytes.
        if read_object(path / OLD_MANIFEST)["data_version"] == version:
            return True
    return is_same(path, version, -1, versions)


def _newest(path: Path, top: os.stat_result) -> int:
    """The time of the latest change within a directory, as far as times tell, in nanoseconds."""
    newest = top.st_mtime_ns - _AFTERWARDS_NS
    for directory, names, files in os.walk(path):
        for name in [*names, *files]:
            if name not in _NOT_HASHED:
                full = os.path.join(directory, name)
                found = os.stat(full) if os.path.exists(full) else os.lstat(full)
                newest = max(newest, found.st_mtime_ns)
    return newest


def _hash_tree(top: str) -> str:
    """Over each file in the order of their names: its name, and its bytes."""
    files = {}
    for directory, _, names in os.walk(top):
        for name in names:
            full = os.path.join(directory, name)
            if name not in _NOT_HASHED and os.path.isfile(full):
                files[os.path.relpath(full, top)] = full
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(b"path:" + os.fsencode(name) + b"\0data:")
        _add(digest, files[name])
        digest.update(b"\0")
    return f"sha256:{digest.hexdigest()}"


def _hash_file(path: str) -> str:
    digest = hashlib.sha256()
    _add(digest, path)
    return f"sha256:{digest.hexdigest()}"


def _add(digest: _Hash, path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)


_SCHEMA = 1


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


def find_older(output: Output) -> Older | Unusable | None:
    """What the older tool recorded of an output, why that cannot be used, or None."""
    if not output.is_directory:
        return None
    try:
        record = os.path.join(output.place, OLD_MANIFEST)
        written_ns = os.stat(record).st_mtime_ns
        table = read_object(record)
        found = _parse(table, written_ns)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unusable(f"cannot be read ({error.strerror})")
    except (ValueError, KeyError, TypeError, OverflowError):
        return Unusable("is damaged")
    container = found.container
    names_an_image = container is None or not os.path.isfile(os.path.join(output.root, container))
    if names_an_image and table.get("code_version") != _code_version(found):
        return Unusable("was changed by hand")
    return found


def older_as_manifest(output: Output, found: Older, provenance: Provenance) -> Manifest:
    """A manifest for a result of the older tool, without stamps of its files."""
    return Manifest(
        output.id,
        output.universe,
        provenance.identity,
        provenance,
        Data(found.data),
        found.made,
        version=OLDER_VERSION,
    )


def outdated_reasons(
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
            if produced[given.id] and not is_made_as(given.path, version, versions):
                reasons.append(f"input {given.id} was remade")
        elif not is_same(given.path, version, since_ns, versions):
            reasons.append(f"input {given.id} changed or was touched ({given.text})")
    declared = {given.id for given in output.inputs}
    reasons += [f"input {name} was removed" for name in found.inputs if name not in declared]
    if not is_same(output.path, found.data, since_ns, versions):
        reasons.append(f"{output.display_path} was changed")
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
    texts += [] if container is None else [container]
    if not all(isinstance(text, str) for text in texts):
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
