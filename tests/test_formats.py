"""What is kept on disk: how each format looks today, and that another version does no harm.

The fixtures in ``fixtures/formats`` are as the code of that version wrote them, and are read by
today's. A format that changes gets another version and another fixture; this one stays. Those named
``-future`` are of a version that is still to come.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightcone.errors import SessionError, UsageError
from lightcone.project.context import Context, allocation_file
from lightcone.project.host import boot_id
from lightcone.project.settings import Settings
from lightcone.session import request
from lightcone.session.liveness import record_end, recorded_end
from lightcone.slurm.allocation_file import ALLOCATION_VERSION, read_allocation
from lightcone.spec.output import MANIFEST, Output
from lightcone.state import hash_cache, journal, partial
from lightcone.state.claims import Busy, Claim, holder, is_interrupted, lock_path
from lightcone.state.fingerprint import Stamp
from lightcone.state.hash_cache import HashCache
from lightcone.state.journal import JOURNAL
from lightcone.state.manifest import (
    MANIFEST_VERSION,
    Manifest,
    Unusable,
    inspect_manifest,
    read_manifest,
    write_manifest,
)
from lightcone.state.older import find_older as find_older
from lightcone.state.partial import (
    FAILURE,
    keep_partial,
    read_failure,
    restore_partial,
    set_partial_aside,
    write_failure,
)
from lightcone.state.tokens import take_tokens
from lightcone.state.verify import Trouble, verify
from lightcone.wire.protocol import PROTOCOL
from tests.helpers import Sandbox
from tests.projects import Project

FORMATS = Path(__file__).parent / "fixtures/formats"
IDENTITY = "0" * 64
SPEC = """\
version: "0.0.14"
name: formats
inputs: [{id: raw, source: raw.csv}]
outputs:
  - {id: x, format: csv, inputs: [raw], recipe: {command: "cp {inputs.raw} {output}"}}
  - {id: y, format: csv, inputs: [x], recipe: {command: "cat {inputs.x} > {output}"}}
  - {id: z, format: csv, inputs: [raw], recipe: {command: "cat {inputs.raw} > {output}"}}
"""


def fixture(name: str) -> Any:
    return json.loads((FORMATS / f"{name}.json").read_bytes())


def shape(value: Any, *, free: frozenset[str] = frozenset()) -> Any:
    """The names in a value and the kinds of what they have; those in ``free`` as they come."""
    if isinstance(value, Mapping):
        return {
            name: "anything" if name in free else shape(inner, free=free)
            for name, inner in sorted(value.items())
        }
    if isinstance(value, list):
        return [shape(inner, free=free) for inner in value[:1]]
    return "number" if type(value) in (int, float) else type(value).__name__


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    project.spec(SPEC)
    project.write("raw.csv", "1\n")
    return project


@pytest.fixture
def output(project: Project) -> Output:
    found = project.output("x")
    found.state_dir.mkdir(parents=True)
    return found


@pytest.fixture
def context(project: Project, tmp_path: Path) -> Context:
    settings = Settings(scratch=tmp_path / "scratch", runtime_dir=tmp_path / "run")
    found = Context(
        "key", "project", project.root, settings, tmp_path / "scratch", tmp_path / "run"
    )
    found.state.mkdir(parents=True)
    return found


def test_each_format_has_a_fixture_of_its_version() -> None:
    versions = {
        "allocation": ALLOCATION_VERSION,
        "failure": partial.FAILURE_VERSION,
        "hash": hash_cache.HASH_VERSION,
        "journal": journal.JOURNAL_VERSION,
        "manifest": MANIFEST_VERSION,
    }
    for name, version in versions.items():
        assert fixture(f"{name}-v{version}")["version"] == version
        assert fixture(f"{name}-future")["version"] > version
    for name in ("session", "spawn"):
        assert fixture(f"{name}-v{PROTOCOL}")["protocol"] == PROTOCOL
    assert fixture("session-future")["protocol"] > PROTOCOL


# The manifest: written by a run, see also tests/state/test_manifest.py.


def test_manifest_is_as_it_was(sandbox: Sandbox) -> None:
    (sandbox.project / "raw.csv").write_text("1\n")
    (sandbox.project / "astra.yaml").write_text(SPEC)
    sandbox.lc("run", "x")
    written = json.loads(
        (sandbox.project / f"results/baseline/.lightcone/x/{MANIFEST}").read_bytes()
    )
    assert shape(written) == shape(fixture("manifest-v2"))
    # The session's own files, while one is there.
    for name in ("session", "spawn", "engine"):
        kept = json.loads((sandbox.state() / f"{name}.json").read_bytes())
        assert shape(kept, free=frozenset({"runs", "workers"})) == shape(
            fixture(f"{name}-v{PROTOCOL}"), free=frozenset({"runs", "workers"})
        ), name
    sandbox.lc("session", "stop")
    ended = json.loads((sandbox.state() / "session.json").read_bytes())["ended"]
    assert shape(ended) == shape(fixture(f"session-ended-v{PROTOCOL}")["ended"])


@pytest.mark.parametrize("version", [1, 2])
def test_manifest_is_read(output: Output, version: int) -> None:
    name = f"manifest-v{version}"
    (output.state_dir / MANIFEST).write_bytes((FORMATS / f"{name}.json").read_bytes())
    found = read_manifest(output.state_dir)
    assert isinstance(found, Manifest)
    assert (found.output, found.universe) == ("x", "baseline")
    assert found.provenance.identity == found.identity
    assert found.data.files[""].size == 2
    write_manifest(output.state_dir, found)
    written = json.loads((output.state_dir / MANIFEST).read_bytes())
    assert written["version"] == MANIFEST_VERSION
    if version == MANIFEST_VERSION:
        assert written == fixture(name)


def test_manifest_without_ctime_is_compared_by_bytes(project: Project) -> None:
    """Version 1 has no ctime, so nothing but the bytes shows that a file is the recorded one."""
    project.make()
    for output in project.outputs():
        file = output.state_dir / MANIFEST
        file.write_bytes(_without_ctime(file.read_bytes()))
    assert set(project.states().values()) == {"ok"}
    raw = project.root / "raw.csv"
    times = raw.stat()
    raw.write_text("2\n")
    os.utime(raw, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert project.states()["baseline/x"] == "stale (input raw changed (raw.csv))"


def _without_ctime(content: bytes) -> bytes:
    def drop(table: dict[str, Any]) -> dict[str, Any]:
        table.pop("ctime_ns", None)
        return table

    table = json.loads(content, object_hook=drop)
    return json.dumps(table | {"version": 1}).encode()


def test_manifest_of_an_observed_recipe_is_read(output: Output) -> None:
    """The identity of one that was not observed is what it was before there was ``observed``."""
    (output.state_dir / MANIFEST).write_bytes((FORMATS / "manifest-v1-observed.json").read_bytes())
    found = read_manifest(output.state_dir)
    assert found is not None and found.provenance.identity == found.identity
    assert found.provenance.observed.missing == ("conf/q.json",)
    assert found.provenance.observed.listings == {"conf": ("p.json",)}
    write_manifest(output.state_dir, found)
    written = read_manifest(output.state_dir)
    assert written is not None and written.version == MANIFEST_VERSION
    assert written.provenance == found.provenance


def _of_tomorrow(project: Project) -> dict[Path, bytes]:
    """A project with good results, of which one has a manifest of a newer version."""
    project.make()
    x = project.output("x")
    record = x.state_dir / MANIFEST
    table = json.loads(record.read_bytes())
    record.write_text(
        json.dumps(table | {"version": MANIFEST_VERSION + 1, "parts": "another form"})
    )
    return _content(project)


def _content(project: Project) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file()}


_REFUSED = "results/baseline/.lightcone/x/manifest.json was written by a newer lc: upgrade lc"


def test_manifest_of_tomorrow_is_told(project: Project) -> None:
    _of_tomorrow(project)
    found = inspect_manifest(project.output("x").state_dir)
    assert found == Unusable("was written by a newer lc", is_newer=True)
    states = project.states()
    assert states["baseline/x"] == f"newer ({_REFUSED})"
    assert states["baseline/z"] == "ok"
    (finding,) = (each for each in verify(project.outputs()).findings if each.output.id == "x")
    assert finding.trouble is Trouble.NEWER


def test_result_of_tomorrow_is_not_moved(project: Project, context: Context) -> None:
    before = _of_tomorrow(project)
    claim = Claim.take(project.output("x"), context.claims)
    assert isinstance(claim, Claim)
    with pytest.raises(UsageError, match="newer lc: upgrade lc"):
        claim.set_aside("lc run, pid 1", 0o022, IDENTITY)
    claim.release()
    (project.root / "results/baseline/x.csv").unlink()
    claim = Claim.take(project.output("x"), context.claims)
    assert isinstance(claim, Claim)
    with pytest.raises(UsageError, match="newer lc: upgrade lc"):
        claim.set_aside("lc run, pid 1", 0o022, IDENTITY)
    claim.release()
    gone = project.root / "results/baseline/x.csv"
    assert _content(project) == {path: data for path, data in before.items() if path != gone}


def test_run_leaves_what_is_of_tomorrow(sandbox: Sandbox) -> None:
    project = Project(sandbox.project)
    project.spec(SPEC)
    project.write("raw.csv", "1\n")
    before = _of_tomorrow(project)
    refused = f"baseline/x: FAILED, {_REFUSED}"
    shown = sandbox.lc("status").stdout
    assert f"newer       baseline/x  {_REFUSED}\n" in shown
    assert sandbox.lc("status", "--check", check=1).stdout == shown
    for options in (["-n"], [], ["-f", "x"], ["x"], ["y"], ["-n", "-f"]):
        told = sandbox.lc("run", *options, check=1).stdout
        assert refused in told
        if options not in (["-f", "x"], ["x"]):
            assert "baseline/y: blocked by baseline/x" in told
        assert _content(project) == before
    assert sandbox.status()["state"] == "dead", "none was needed"
    assert sandbox.lc("run", "z").stdout.startswith("lc: 1 up to date")
    assert "newer record" in sandbox.lc("verify", check=1).stdout
    # What does not need it is made.
    project.write("raw.csv", "2\n")
    told = sandbox.lc("run", check=1).stdout
    assert refused in told
    assert "baseline/z: made" in told
    assert (sandbox.project / "results/baseline/x.csv").read_text() == "1\n"
    assert (sandbox.project / "results/baseline/y.csv").read_text() == "1\n"


# The older tool's, see tests/state/test_older.py for all that it recorded.


def test_older_manifest_is_read(project: Project) -> None:
    project.spec(SPEC.replace("format: csv, ", ""))
    record = project.write(
        "results/baseline/x/.lightcone-manifest.json",
        (FORMATS / "older-0.4.json").read_text(),
    )
    output = project.output("x")
    found = find_older(output)
    assert not isinstance(found, Unusable) and found is not None
    assert (found.output, found.universe) == ("x", "baseline")
    record.write_text(json.dumps(fixture("older-0.4") | {"schema_version": 2}))
    assert isinstance(find_older(output), Unusable)


# The journal of a claim.


def test_journal_is_as_it_was(output: Output, context: Context) -> None:
    claim = Claim.take(output, context.claims)
    assert isinstance(claim, Claim)
    tokens = take_tokens(output, ["src/fit.sh"])
    claim.set_aside("lc run, pid 1", 0o022, IDENTITY, found=["fit.log"], tokens=tokens)
    written = json.loads((output.state_dir / JOURNAL).read_bytes())
    claim.restore()
    claim.release()
    # In a container no host is certain.
    free = frozenset({"machine"})
    assert shape(written, free=free) == shape(fixture("journal-v2"), free=free)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("had_output", [True, False])
def test_journal_is_read(
    output: Output,
    context: Context,
    had_output: bool,
    version: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run that had set a result aside: in this boot, or (version 2) before it."""
    lock = lock_path(context.claims, output.path)
    table = fixture(f"journal-v{version}") | {"lock": str(lock), "had_output": had_output}
    monkeypatch.setattr(journal, "machine_id", lambda: fixture("journal-v2")["machine"])
    table |= {"boot_id": boot_id()} if version == 1 else {"host": socket.gethostname()}
    (output.state_dir / JOURNAL).write_text(json.dumps(table))
    if had_output:
        (output.state_dir / "previous").mkdir()
        (output.state_dir / "previous/output").write_text("good")
    output.path.write_text("half")
    assert is_interrupted(output)
    claim = Claim.take(output, context.claims)
    assert isinstance(claim, Claim)
    claim.release()
    assert not (output.state_dir / JOURNAL).exists()
    assert output.path.read_text() == "good" if had_output else not output.path.exists()
    assert (output.state_dir / "partial").read_text() == "half"
    note = json.loads((output.state_dir / "partial.json").read_bytes())
    assert {name for name in table if note[name] != table[name]} <= {
        *("lock", "lock_device", "lock_inode", "host", "boot_id", "job", "cluster"),
    }, "whoever recovers it becomes its writer"


def test_journal_of_version_1_does_not_tell_hosts_apart(output: Output, context: Context) -> None:
    lock = lock_path(context.claims, output.path)
    (output.state_dir / JOURNAL).write_text(json.dumps(fixture("journal-v1") | {"lock": str(lock)}))
    output.path.write_text("half")
    busy = Claim.take(output, context.claims)
    assert isinstance(busy, Busy)
    assert "start 'lc run' on node1 once" in busy.by
    assert output.path.read_text() == "half"


def test_journal_of_tomorrow_is_held(project: Project, context: Context) -> None:
    output = project.output("x")
    output.state_dir.mkdir(parents=True)
    table = fixture("journal-future") | {"lock": str(lock_path(context.claims, output.path))}
    (output.state_dir / JOURNAL).write_text(json.dumps(table))
    (output.state_dir / "previous").mkdir()
    (output.state_dir / "previous/output").write_text("good")
    before = _content(project)
    by = holder(output)
    assert by is not None
    assert by.by == f"a newer lc, which wrote {output.state_dir / JOURNAL}: upgrade lc"
    assert Claim.take(output, context.claims) == Busy(by.by, None)
    assert _content(project) == before


# The rest of what is beside the results.


def test_failure_is_as_it_was(output: Output) -> None:
    write_failure(output, IDENTITY, "exit code 3", exit_code=3, interrupted=False, products=["a"])
    written = json.loads((output.state_dir / FAILURE).read_bytes())
    assert shape(written) == shape(fixture("failure-v1"))
    (output.state_dir / FAILURE).write_bytes((FORMATS / "failure-v1.json").read_bytes())
    assert read_failure(output.state_dir) == fixture("failure-v1")


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_failure_of_another_version_says_nothing(output: Output, version: object) -> None:
    record = fixture("failure-future") | {"version": version}
    (output.state_dir / FAILURE).write_text(json.dumps(record))
    assert read_failure(output.state_dir) is None


def test_partial_work_is_as_it_was(output: Output) -> None:
    """Its note is the journal, whose identity no other version makes of the same things."""
    journal = output.state_dir / JOURNAL
    journal.write_bytes((FORMATS / "journal-v1.json").read_bytes())
    output.path.write_text("half")
    set_partial_aside(output)
    assert (output.state_dir / "partial.new").read_text() == "half"
    keep_partial(output, journal)
    journal.unlink()
    assert json.loads((output.state_dir / "partial.json").read_bytes())["identity"] == IDENTITY
    assert not restore_partial(output, "1" * 64)
    assert restore_partial(output, IDENTITY)
    assert output.path.read_text() == "half"


# What is on scratch.


def test_hash_is_as_it_was(tmp_path: Path) -> None:
    kept = HashCache(tmp_path / "hashes")
    when = 1_700_000_000_000_000_000
    stamp = Stamp(1 << 30, when, 7, "ab" * 32, when)
    looks: Any = SimpleNamespace(
        st_size=stamp.size, st_mtime_ns=when, st_ctime_ns=when, st_ino=stamp.inode
    )
    kept.keep("/data/raw.bin", stamp)
    (entry,) = (tmp_path / "hashes").iterdir()
    assert json.loads(entry.read_bytes()) == fixture("hash-v2")
    assert kept.find("/data/raw.bin", looks) == stamp
    for version in (3, 1, 0, "2", None):
        entry.write_text(json.dumps(fixture("hash-v2") | {"version": version}))
        assert kept.find("/data/raw.bin", looks) is None
    for name in ("hash-v1", "hash-future"):
        entry.write_bytes((FORMATS / f"{name}.json").read_bytes())
        assert kept.find("/data/raw.bin", looks) is None


def test_allocation_is_as_it_was(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "_salloc", lambda options, say: 5)
    monkeypatch.setattr(request, "context_of", lambda root: context)
    request.allocate(context, "-N 1", print)
    path = allocation_file(context.root, context.settings)
    assert shape(json.loads(path.read_bytes())) == shape(fixture("allocation-v1"))
    path.write_bytes((FORMATS / "allocation-v1.json").read_bytes())
    assert read_allocation(path) == 5


def test_allocation_of_tomorrow_is_refused(context: Context) -> None:
    """Without this one it would be forgotten, and another asked for."""
    path = allocation_file(context.root, context.settings)
    path.parent.mkdir(parents=True)
    path.write_bytes((FORMATS / "allocation-future.json").read_bytes())
    with pytest.raises(SessionError, match="was written by a newer lc: upgrade lc, or remove"):
        read_allocation(path)
    assert path.read_bytes() == (FORMATS / "allocation-future.json").read_bytes()


# The session's record: of any version, it says at most why the last one ended.


@pytest.mark.parametrize(
    "name",
    [*(f"session-ended-v{version}" for version in range(2, PROTOCOL + 1)), "session-future"],
)
def test_record_of_a_session_is_read(context: Context, name: str) -> None:
    context.record.write_bytes((FORMATS / f"{name}.json").read_bytes())
    assert recorded_end(context) == fixture(name)["ended"]
    record_end(context, "another reason")
    assert json.loads(context.record.read_bytes()) == fixture(name)


def test_record_of_a_session_that_was_killed(context: Context) -> None:
    context.record.write_bytes((FORMATS / "session-v2.json").read_bytes())
    assert recorded_end(context) is None
    (context.state / "logs").mkdir()
    (context.state / "logs/scheduler.log").touch()
    found = recorded_end(context)
    assert found is not None and found["reason"] == "its scheduler was killed"
    record_end(context, "stopped")
    assert json.loads(context.record.read_bytes())["ended"]["reason"] == "stopped"


def test_record_never_says_that_a_session_is_alive(sandbox: Sandbox) -> None:
    sandbox.lc("session", "start")
    sandbox.lc("session", "stop")
    recent = [f"session-v{version}" for version in range(3, PROTOCOL + 1)]
    for name in (*recent, f"session-ended-v{PROTOCOL}", "session-future"):
        (sandbox.state() / "session.json").write_bytes((FORMATS / f"{name}.json").read_bytes())
        assert sandbox.status()["state"] == "dead"
    assert sandbox.lc("exec", "--", "echo", "hello").stdout == "hello\n"
