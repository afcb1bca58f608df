"""Manifests: written last and whole, read with suspicion."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.state.fingerprint import UNTRUSTED, Data, Stamp
from lightcone.state.manifest import (
    Manifest,
    Provenance,
    Source,
    Unusable,
    inspect_manifest,
    read_manifest,
    write_manifest,
)

FIXTURE = Path(__file__).parent / "fixtures/manifest-2.json"
SHA = "ab" * 32
CTIME = 1_700_000_000_000_000_000
PARTS = Provenance(
    command="python src/fit.py data/raw.csv results/u/clean -o results/u/fit",
    template="python src/fit.py {inputs} -o {output}",
    container="python:3.12",
    files={"src/fit.py": Stamp(10, 1_700_000_000_000_000_000, 7, SHA, CTIME + 1)},
    inputs={
        "raw": Source("data/raw.csv", SHA, {"": Stamp(5, -1, 8, SHA, CTIME + 2)}),
        "clean": Source("results/u/clean", "cd" * 32),
        "archive": Source("https://example.org", "text:https://example.org"),
    },
    decisions={"cut": "strict", "größe": "200m"},
)
MANIFEST = Manifest(
    output="sub.fit",
    universe="u",
    identity=PARTS.identity,
    provenance=PARTS,
    data=Data(
        "ef" * 32,
        {"a/b.csv": Stamp(3, 4, 5, SHA, CTIME + 3), "\udcff": Stamp(0, 0, 0, SHA, CTIME + 4)},
    ),
    made={"started": "2026-11-22T10:00:00+00:00", "seconds": 1.5, "host": "h", "exit_code": 0},
)


def test_round_trip(tmp_path: Path) -> None:
    state = tmp_path / "results/u/.lightcone/sub.fit"
    assert read_manifest(state) is None
    assert inspect_manifest(state) is None
    write_manifest(state, MANIFEST)
    assert read_manifest(state) == MANIFEST
    assert os.listdir(state) == ["manifest.json"]
    write_manifest(state, replace(MANIFEST, output="other"))
    assert read_manifest(state) == replace(MANIFEST, output="other")
    assert os.listdir(state) == ["manifest.json"]


def test_the_format_stays(tmp_path: Path) -> None:
    """What version 2 looks like on disk; a change needs another version and reads this one."""
    (tmp_path / "manifest.json").write_bytes(FIXTURE.read_bytes())
    assert read_manifest(tmp_path) == MANIFEST
    write_manifest(tmp_path, MANIFEST)
    assert (tmp_path / "manifest.json").read_bytes() == FIXTURE.read_bytes()
    assert MANIFEST.version == 2


def test_version_1_is_read_and_its_files_match_none(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((FIXTURE.parent / "manifest-1.json").read_bytes())
    found = read_manifest(tmp_path)
    assert found is not None
    assert found.provenance.identity == found.identity == MANIFEST.identity
    stamps = [*found.data.files.values(), *found.provenance.files.values()]
    assert {stamp.ctime_ns for stamp in stamps} == {UNTRUSTED}
    same: Any = SimpleNamespace(st_size=3, st_mtime_ns=4, st_ino=5, st_ctime_ns=UNTRUSTED)
    assert not found.data.files["a/b.csv"].matches(same)


def test_what_is_seldom_there(tmp_path: Path) -> None:
    full = replace(MANIFEST, products=("run.log",), disturbed=("conf/a.yaml", "src/fit.py"))
    write_manifest(tmp_path, full)
    assert read_manifest(tmp_path) == full
    for damage in ("run.log", [1], {"run.log": 1}, 5):
        written = json.loads((tmp_path / "manifest.json").read_bytes()) | {"products": damage}
        (tmp_path / "manifest.json").write_text(json.dumps(written))
        assert inspect_manifest(tmp_path) == Unusable("is damaged")


def test_the_identity_stays() -> None:
    assert PARTS.identity == "f1f9b9197ed71f97b5a7069b893feefa56b60aa321f97aa85033acc282668d4c"
    plain = Provenance("echo", "echo")
    determines = json.dumps(["echo", None, [], [], []])
    assert plain.identity == hashlib.sha256(determines.encode()).hexdigest()


def test_what_is_part_of_the_identity() -> None:
    changed = [
        replace(PARTS, command="other"),
        replace(PARTS, container=None),
        replace(PARTS, files={}),
        replace(PARTS, files={"src/fit.py": Stamp(10, 0, 7, "00")}),
        replace(PARTS, inputs={}),
        replace(PARTS, inputs=PARTS.inputs | {"raw": Source("data/raw.csv", "00")}),
        replace(PARTS, decisions={}),
        replace(PARTS, decisions={"cut": "loose"}),
    ]
    same = [
        replace(PARTS, template="other"),
        replace(PARTS, files={"src/fit.py": Stamp(1, 2, 3, SHA)}),
        replace(PARTS, inputs=dict(reversed(PARTS.inputs.items()))),
        replace(PARTS, decisions=dict(reversed(PARTS.decisions.items()))),
        replace(PARTS, inputs=PARTS.inputs | {"raw": Source("data/raw.csv", SHA)}),
    ]
    assert len({provenance.identity for provenance in [PARTS, *changed]}) == 1 + len(changed)
    assert {provenance.identity for provenance in same} == {PARTS.identity}


def test_permissions_are_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_manifest(tmp_path, MANIFEST)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "manifest.json").stat().st_mode) == 0o640


def test_a_write_that_fails_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path, MANIFEST)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_manifest(tmp_path, replace(MANIFEST, output="other"))
    assert read_manifest(tmp_path) == MANIFEST
    assert os.listdir(tmp_path) == ["manifest.json"]


def table() -> Any:
    return json.loads(FIXTURE.read_bytes())


def without(*path: str) -> Any:
    content = table()
    place = content
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is damaged"),
        (b"{", "is damaged"),
        (b"\xff\xff", "is damaged"),
        (b"[]", "is damaged"),
        (b"null", "is damaged"),
        (b"{}", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (FIXTURE.read_bytes()[:-200], "is damaged"),
        (table() | {"version": 0}, "is damaged"),
        (table() | {"version": [1]}, "is damaged"),
        (table() | {"version": "2"}, "is damaged"),
        (table() | {"identity": 5}, "is damaged"),
        (table() | {"output": None}, "is damaged"),
        (table() | {"parts": []}, "is damaged"),
        (table() | {"made": "yesterday"}, "is damaged"),
        (table() | {"data": {"version": "x", "files": {"a": {}}}}, "is damaged"),
        (table() | {"data": {"version": "x", "files": {"a": [1, 2, 3, "x"]}}}, "is damaged"),
        (without("data"), "is damaged"),
        (without("parts", "inputs"), "is damaged"),
        (without("parts", "inputs", "raw", "version"), "is damaged"),
        (without("parts", "files", "src/fit.py", "size"), "is damaged"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, content: Any, reason: str) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / "manifest.json").write_bytes(text)
    assert inspect_manifest(tmp_path) == Unusable(reason)
    assert read_manifest(tmp_path) is None


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    assert inspect_manifest(tmp_path) == Unusable("cannot be read (Is a directory)")
    (tmp_path / "file").touch()
    assert inspect_manifest(tmp_path / "file") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(data=st.data())
def test_any_damage_is_found_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    content = table()
    place: Any = content
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    found = inspect_manifest(tmp_path)
    assert isinstance(found, Manifest | Unusable)
    if isinstance(found, Manifest):
        assert isinstance(found.provenance.identity, str)


@given(content=st.binary())
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert isinstance(inspect_manifest(tmp_path), Unusable)
