"""Results of the older tool (lightcone-cli 0.4), and checks of their records.

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

__all__ = [
    "OlderRecord",
    "find_older",
    "has_version",
    "older_as_manifest",
    "outdated_reasons",
    "output_has_version",
]

_NOT_HASHED = frozenset({OLD_MANIFEST, ".snakemake_timestamp"})

# An output's directory is written to once more after its record, by what called the older tool.
_AFTERWARDS_NS = 60 * 10**9

_CHUNK = 1 << 20


def has_version(path: Path | None, version: str, since_ns: int, versions: dict[str, str]) -> bool:
    """Return whether the data at ``path`` still has the recorded ``version``.

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


def output_has_version(path: Path | None, version: str, versions: dict[str, str]) -> bool:
    """Return whether a good output has the bytes recorded as ``version``."""
    if path is None:
        return False
    with contextlib.suppress(OSError, ValueError, KeyError):
        # Its record goes with it when it is made again, so what is there is about these bytes.
        if read_object(path / OLD_MANIFEST)["data_version"] == version:
            return True
    return has_version(path, version, -1, versions)


def _newest(path: Path, top: os.stat_result) -> int:
    """Return the time of the latest change in a directory, in nanoseconds.

    As far as the times of its files tell.
    """
    newest = top.st_mtime_ns - _AFTERWARDS_NS
    for directory, names, files in os.walk(path):
        for name in [*names, *files]:
            if name not in _NOT_HASHED:
                full = os.path.join(directory, name)
                status = os.stat(full) if os.path.exists(full) else os.lstat(full)
                newest = max(newest, status.st_mtime_ns)
    return newest


def _hash_tree(top: str) -> str:
    """Hash the name and the bytes of each file, in order of names."""
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
class OlderRecord:
    """The older tool's record of an output; ``written_ns`` is its time."""

    output: str
    universe: str
    recipe: str
    container: str | None
    decisions: dict[str, Any]
    inputs: dict[str, str]
    data: str
    made: dict[str, Any]
    written_ns: int


def find_older(output: Output) -> OlderRecord | Unusable | None:
    """Read the older tool's record: usable, unusable, or None if missing."""
    if not output.is_directory:
        return None
    try:
        file = os.path.join(output.place, OLD_MANIFEST)
        written_ns = os.stat(file).st_mtime_ns
        table = read_object(file)
        record = _parse(table, written_ns)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unusable(f"cannot be read ({error.strerror})")
    except (ValueError, KeyError, TypeError, OverflowError):
        return Unusable("is damaged")
    container = record.container
    names_an_image = container is None or not os.path.isfile(os.path.join(output.root, container))
    if names_an_image and table.get("code_version") != _code_version(record):
        return Unusable("was changed by hand")
    return record


def older_as_manifest(output: Output, record: OlderRecord, provenance: Provenance) -> Manifest:
    """Build a manifest for a result of the older tool, without stamps."""
    return Manifest(
        output.id,
        output.universe,
        provenance.identity,
        provenance,
        Data(record.data),
        record.made,
        version=OLDER_VERSION,
    )


def outdated_reasons(
    output: Output,
    record: OlderRecord,
    produced: Mapping[str, str | None],
    versions: dict[str, str],
    *,
    thorough: bool = False,
) -> list[str]:
    """Describe each way in which a record no longer holds.

    Args:
        output: the output as it is declared now.
        record: the record.
        produced: the inputs that outputs make, with None for what is not good.
        versions: the hashes of directories that were computed already, for others to come.
        thorough: whether all bytes are read.
    """
    if (record.universe, record.output) != (output.universe, output.id.rpartition(".")[2]):
        return [f"its manifest is that of {record.universe}/{record.output}"]
    reasons = []
    since_ns = -1 if thorough else record.written_ns
    if record.recipe.strip() != output.template.strip():
        reasons.append("recipe changed")
    if record.container != output.container:
        reasons.append(f"container: {record.container or 'none'} → {output.container or 'none'}")
    elif _is_newer(output.root, output.container, record.written_ns):
        reasons.append(f"{output.container} changed")
    chosen = dict(output.decisions)
    for name, option in record.decisions.items():
        if not _is_option(option, chosen.get(name), f"{{decisions.{name}}}" in output.template):
            reasons.append(f"decision {name}: {option} → {chosen.get(name) or 'none'}")
    for given in output.inputs:
        version = record.inputs.get(given.id)
        if version is None:
            reasons.append(f"input {given.id} was added")
        elif given.id in produced:
            if produced[given.id] and not output_has_version(given.path, version, versions):
                reasons.append(f"input {given.id} was remade")
        elif not has_version(given.path, version, since_ns, versions):
            reasons.append(f"input {given.id} changed or was touched ({given.text})")
    declared = {given.id for given in output.inputs}
    reasons += [f"input {name} was removed" for name in record.inputs if name not in declared]
    if not has_version(output.path, record.data, since_ns, versions):
        reasons.append(f"{output.display_path} was changed")
    return reasons


def _parse(table: dict[str, Any], written_ns: int) -> OlderRecord:
    if table["schema_version"] != _SCHEMA:
        raise ValueError("an unknown version")
    container, finished = table["container_image"], table.get("finished_at")
    finished_at = None
    if isinstance(finished, float):
        finished_at = datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds")
    record = OlderRecord(
        output=table["output_id"],
        universe=table["universe_id"],
        recipe=table["recipe"],
        container=container,
        decisions=dict(table["decisions"]),
        inputs=dict(table["input_versions"]),
        data=table["data_version"],
        made={
            "by": f"lightcone-cli {table.get('lc_version')}",
            "finished": finished_at,
            "host": table.get("host"),
        },
        written_ns=written_ns,
    )
    texts = [record.output, record.universe, record.recipe, record.data, *record.inputs.values()]
    texts += [] if container is None else [container]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("what should be text is none")
    return record


def _code_version(record: OlderRecord) -> str:
    determines = {
        "recipe": record.recipe,
        "container_image": record.container,
        "decisions": record.decisions,
    }
    text = json.dumps(determines, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _is_option(recorded: object, chosen: str | None, in_command: bool) -> bool:
    """Return whether a recorded YAML value is the option chosen today."""
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
    """Return whether a container's build file is newer than the record."""
    if container is None:
        return False
    try:
        status = os.stat(root / container)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_mtime_ns > written_ns
