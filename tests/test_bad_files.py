"""Every file that is read, full of anything: an answer or one sentence, and nothing lost.

Nothing here may wait: the limits of time are for what opens a pipe that nobody writes to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given

from lightcone.cli.main import cli
from lightcone.errors import LightconeError
from lightcone.project import context as contexts
from lightcone.project.context import Context, allocation_file
from lightcone.project.settings import Settings, load_settings
from lightcone.scaffold.changes import apply_changes
from lightcone.scaffold.hooks import with_hooks, without_hooks
from lightcone.session import doctor_host
from lightcone.session.liveness import record_end, recorded_end
from lightcone.slurm.allocation_file import read_allocation
from lightcone.spec.outputs import load_outputs
from lightcone.state.adopt import adopt_all
from lightcone.state.claims import Busy, Claim, holder, is_interrupted, lock_path, recover_output
from lightcone.state.fingerprint import Stamp
from lightcone.state.hash_cache import HashCache
from lightcone.state.journal import good_log
from lightcone.state.partial import restore_partial, write_failure
from lightcone.state.plan import plan
from lightcone.state.verify import verify
from lightcone.system.files import remove
from lightcone.wire.control_client import _over_network
from tests.fuzzing import SOAKED, THINGS, bad, bad_json, examples, fails_well
from tests.helpers import Sandbox
from tests.projects import Project

pytestmark = pytest.mark.timeout(0 if SOAKED else 60)

_SPEC = """\
inputs: [{id: raw, source: data/raw.csv}]
decisions: {cut: {default: strict, options: {strict: {}, loose: {}}}}
outputs:
  - {id: clean, inputs: [raw], recipe: {command: "cp {inputs.raw} {output}/table.csv"}}
  - id: fit
    inputs: [clean]
    decisions: [cut]
    recipe: {command: "cat {inputs.clean}/* > {output}/fit.txt; : {decisions.cut}"}
"""
_UNIVERSE = "decisions: {cut: loose}\n"
_SETTINGS = b"""\
[session]
idle_timeout = "1h"
forgotten_timeout = 86400
scratch = "scratch"
[run]
grace = 1.5
oversized = "clamp"
[results]
layout = "auto"
depend_on = ["data/*.csv"]
"""
_HOOKS = (Path(doctor_host.__file__).parents[1] / "scaffold/hooks.json").read_bytes()
_ENDED = {"ended": {"reason": "idle", "at": "2026-11-22T12:00:00+00:00"}}
_RECORD = json.dumps({"key": "k", "control": "127.0.0.1:1", "protocol": 1, **_ENDED}).encode()
_OLDER = {
    "code_version": "sha256:0",
    "container_image": None,
    "data_version": "sha256:0",
    "decisions": {"cut": "loose"},
    "finished_at": 1767225600.5,
    "host": "login1",
    "input_versions": {"clean": "mtime-size:1-1"},
    "lc_version": "0.4.2",
    "output_id": "fit",
    "recipe": "cat {inputs.clean}/* > {output}/fit.txt; : {decisions.cut}",
    "schema_version": 1,
    "universe_id": "u",
}


class Place:
    """A project with good results, and a context of its own in which nothing runs."""

    def __init__(self, base: Path) -> None:
        self.project = Project(base / "project")
        self.root = self.project.root
        self.project.spec(_SPEC, {"u": _UNIVERSE})
        self.project.write("data/raw.csv", "1\n2\n")
        self.project.make()
        self.context = Context(
            "key", "project", self.root, Settings(), base / "scratch", base / "run"
        )
        self.context.state.mkdir(parents=True)
        self.context.claims.mkdir()
        self.fit = self.project.output("u/fit")
        self.good = self.fit.state_dir / "manifest.json"
        self.good_bytes = self.good.read_bytes()
        self.lock = lock_path(self.context.claims, self.fit.path)

    def reset(self) -> None:
        """The good results again, after an example has broken something."""
        for left in self.fit.state_dir.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        self.good.write_bytes(self.good_bytes)
        for each in self.fit.path.iterdir():
            if each.name.startswith("."):
                each.unlink()

    def look(self) -> list[Any]:
        """All that is asked of a project's results by verbs that change nothing."""
        outputs = load_outputs(self.root, Settings())
        assessed = plan(outputs)
        for output in outputs:
            by = holder(output)
            assert by is None or isinstance(by.by, str)
            is_interrupted(output)
            good_log(output)
        verify(outputs)
        assert (self.fit.path / "fit.txt").read_text() == "1\n2\n"
        return [assessment.state for assessment in assessed.values()]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    base = Path(tempfile.mkdtemp(prefix="lc-bad-")).resolve()
    try:
        (base / "project").mkdir()
        yield Place(base)
    finally:
        shutil.rmtree(base)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(where: tuple[str, int], timeout: float | None) -> None:
        raise ConnectionRefusedError(where)

    monkeypatch.setattr(socket, "create_connection", refuse)


def _failure(place: Place) -> bytes:
    write_failure(
        place.fit, "0" * 64, "exit code 3", exit_code=3, interrupted=False, products=["a"]
    )
    return (place.fit.state_dir / "failure.json").read_bytes()


def _journal(place: Place) -> bytes:
    claim = Claim.take(place.fit, place.context.claims)
    assert isinstance(claim, Claim)
    claim.set_aside("lc run, pid 1", 0o022, "0" * 64)
    found = (place.fit.state_dir / "journal.json").read_bytes()
    claim.restore()
    claim.release()
    return found


def _entry(place: Place) -> tuple[Path, bytes]:
    hashes = HashCache(place.context.hashes)
    hashes.keep(str(place.root / "large"), Stamp(1 << 30, 5, 6, "ab" * 32, 7))
    (entry,) = place.context.hashes.iterdir()
    return entry, entry.read_bytes()


def _find_hash(place: Place) -> None:
    look: Any = SimpleNamespace(st_size=1 << 30, st_mtime_ns=5, st_ctime_ns=7, st_ino=6)
    found = HashCache(place.context.hashes).find(str(place.root / "large"), look)
    assert found is None or isinstance(found, Stamp)


def _read_session(place: Place) -> None:
    ended = recorded_end(place.context)
    assert ended is None or set(ended) == {"reason", "at"}
    before = place.context.record.read_bytes() if place.context.record.is_file() else None
    allocation = replace(place.context, job=1, key="../sessions/" + place.context.state.name)
    with pytest.raises(OSError):
        _over_network(allocation, 1.0)
    record_end(place.context, "a reason")
    if before is not None:
        assert place.context.record.is_file()
        place.context.record.write_bytes(before)


def _read_allocation(place: Place) -> None:
    settings = replace(Settings(), scratch=place.context.scratch)
    job = read_allocation(allocation_file(place.root, settings))
    assert job is None or job > 0


def _read_settings(place: Place) -> None:
    found = load_settings(place.root, {})
    assert 0 < found.idle_timeout < 1e10
    contexts.context_of(place.root).check()


def _read_claude_settings(place: Place) -> None:
    path = place.root / ".claude/settings.json"
    before = path.read_bytes() if path.is_file() else None
    for change in (with_hooks(place.root), without_hooks(place.root)):
        apply_changes(place.root, [change])
        if before is not None and change.before is not None and path.is_file():
            path.write_bytes(before)


def _check_claude_settings(place: Place) -> None:
    assert doctor_host._hooks(place.context).name == "hooks"


def _take_over(place: Place) -> None:
    place.good.unlink(missing_ok=True)
    outputs = place.project.outputs()
    adopt_all(plan(outputs), place.context.claims)
    place.look()


def _resume(place: Place) -> None:
    work = place.fit.state_dir / "partial"
    work.write_text("half")
    assert not restore_partial(place.fit, "0" * 64)
    assert work.read_text() == "half"


@dataclass(frozen=True)
class Reader:
    """A file, what is good in it, and what reads it."""

    file: Callable[[Place], Path]
    good: Callable[[Place], bytes]
    read: Callable[[Place], object]
    is_json: bool = True


def _recover(place: Place) -> None:
    """What the next run does first: whatever the journal says, the good result is not lost."""
    path, previous = place.fit.path / "fit.txt", place.fit.state_dir / "previous"
    kept = json.loads(place.good_bytes)
    for aside in (False, True):
        if aside:
            previous.mkdir(exist_ok=True)
            os.rename(place.fit.path, previous / "output")
            os.rename(place.good, previous / "manifest.json")
            place.fit.path.mkdir()
            path.write_text("half")
        journal = place.fit.state_dir / "journal.json"
        before = journal.read_bytes() if journal.is_file() else None
        try:
            with contextlib.suppress(LightconeError):
                recover_output(place.fit, place.context.claims)
            found = fails_well(lambda: Claim.take(place.fit, place.context.claims))
            if isinstance(found, Claim):
                found.release()
                assert not os.path.lexists(journal)
                assert path.read_text() == "1\n2\n"
                assert json.loads(place.good.read_bytes()) == kept
            else:
                assert isinstance(found, Busy | LightconeError)
                if aside:
                    assert (previous / "output/fit.txt").read_text() == "1\n2\n"
                    assert path.read_text() == "half"
                else:
                    assert path.read_text() == "1\n2\n"
        finally:
            if (previous / "output").exists():
                shutil.rmtree(place.fit.path)
                os.rename(previous / "output", place.fit.path)
                os.rename(previous / "manifest.json", place.good)
            shutil.rmtree(previous, ignore_errors=True)
            if before is not None:
                journal.write_bytes(before)


_READERS = {
    "manifest": Reader(lambda p: p.good, lambda p: p.good_bytes, Place.look),
    "failure": Reader(lambda p: p.fit.state_dir / "failure.json", _failure, Place.look),
    "journal": Reader(lambda p: p.fit.state_dir / "journal.json", _journal, Place.look),
    "journal, by the next run": Reader(
        lambda p: p.fit.state_dir / "journal.json", _journal, _recover
    ),
    "hash": Reader(lambda p: _entry(p)[0], lambda p: _entry(p)[1], _find_hash),
    "session": Reader(lambda p: p.context.record, lambda _: _RECORD, _read_session),
    "allocation": Reader(
        lambda p: allocation_file(p.root, replace(Settings(), scratch=p.context.scratch)),
        lambda _: b'{"version": 1, "job": 5, "root": "/"}',
        _read_allocation,
    ),
    "the agent's settings": Reader(
        lambda p: p.root / ".claude/settings.json", lambda _: _HOOKS, _read_claude_settings
    ),
    "the agent's settings, checked": Reader(
        lambda p: p.root / ".claude/settings.json", lambda _: _HOOKS, _check_claude_settings
    ),
    "older manifest": Reader(
        lambda p: p.fit.path / ".lightcone-manifest.json",
        lambda _: json.dumps(_OLDER).encode(),
        _take_over,
    ),
    "identity": Reader(
        lambda p: p.fit.state_dir / "partial.json",
        lambda p: json.dumps({"identity": "1" * 64, "name": p.fit.path.name}).encode(),
        _resume,
    ),
    "settings": Reader(
        lambda p: p.root / "lightcone.toml", lambda _: _SETTINGS, _read_settings, False
    ),
    "spec": Reader(lambda p: p.root / "astra.yaml", lambda _: _SPEC.encode(), Place.look, False),
    "universe": Reader(
        lambda p: p.root / "universes/u.yaml", lambda _: _UNIVERSE.encode(), Place.look, False
    ),
}


def _put_back(place: Place) -> None:
    (place.root / "astra.yaml").unlink(missing_ok=True)
    place.project.spec(_SPEC, {"u": _UNIVERSE})
    (place.root / "lightcone.toml").unlink(missing_ok=True)
    shutil.rmtree(place.root / ".claude", ignore_errors=True)
    shutil.rmtree(place.context.hashes, ignore_errors=True)
    place.reset()


def _drop(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", _READERS)
def test_any_content(place: Place, name: str) -> None:
    reader = _READERS[name]
    good = reader.good(place)
    file = reader.file(place)

    @examples(25)
    @given((bad_json if reader.is_json else bad)(good))
    def check(content: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.write_bytes(content)
            fails_well(lambda: reader.read(place))
        finally:
            _drop(file)

    try:
        check()
    finally:
        _put_back(place)


@pytest.mark.parametrize("name", _READERS)
@pytest.mark.parametrize("thing", THINGS)
def test_anything_in_its_place(place: Place, name: str, thing: str) -> None:
    reader = _READERS[name]
    reader.good(place)
    file = reader.file(place)
    try:
        THINGS[thing](file)
        fails_well(lambda: reader.read(place))
    finally:
        _drop(file)
        _put_back(place)


_FILES = {
    "astra.yaml": "project/astra.yaml",
    "universe": "project/universes/u.yaml",
    "settings": "project/lightcone.toml",
    "script": "project/src/fit.sh",
    "input": "project/data/raw.csv",
    "ignored": "project/.gitignore",
    "agents": "project/AGENTS.md",
    "agent's settings": "project/.claude/settings.json",
    "output": "project/results/u/fit",
    "manifest": "project/results/u/.lightcone/fit/manifest.json",
    "journal": "project/results/u/.lightcone/fit/journal.json",
    "failure": "project/results/u/.lightcone/fit/failure.json",
    "log": "project/results/u/.lightcone/fit/log.txt",
    "good log": "project/results/u/.lightcone/fit/good-log.txt",
    "partial": "project/results/u/.lightcone/fit/partial",
    "partial's note": "project/results/u/.lightcone/fit/partial.json",
    "previous": "project/results/u/.lightcone/fit/previous",
    "state": "project/results/u/.lightcone/fit",
    "older manifest": "project/results/u/fit/.lightcone-manifest.json",
    "results": "project/results",
    "session": "STATE/session.json",
    "owner lock": "STATE/owner.lock",
    "members lock": "STATE/members.lock",
    "control socket": "RUN/control",
    "claim": "CLAIM",
    "claims": "scratch/.lightcone/claims",
    "hashes": "scratch/.lightcone/hashes",
}
_CALLS = (
    ("status", "--json"),
    ("run", "-n"),
    ("session", "status"),
    ("session", "list"),
    ("log", "u/fit"),
    ("verify",),
    ("why", "u/fit"),
    ("init",),
    ("clean",),
)


@pytest.mark.parametrize("number", range(len(_FILES)), ids=list(_FILES))
def test_every_verb_with_one_file_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file, things = list(_FILES)[number], list(THINGS)
    if not SOAKED:  # a pipe, and another thing for each file
        things = list(dict.fromkeys(["pipe", things[number % len(things)]]))
    for thing in things:
        base = tmp_path / thing.replace(" ", "-")
        base.mkdir()
        place = Place(base)
        monkeypatch.chdir(place.root)
        monkeypatch.setenv("LIGHTCONE_SCRATCH", str(base / "scratch"))
        monkeypatch.setenv("LIGHTCONE_RUNTIME_DIR", str(base / "run"))
        context = contexts.context_of(place.root)
        names = {"STATE": context.state, "RUN": context.runtime, "CLAIM": place.lock}
        name = _FILES[file]
        for short, path in names.items():
            name = name.replace(short, str(path))
        THINGS[thing](base / name)
        for call in _CALLS:
            told = CliRunner().invoke(cli, call, standalone_mode=False)
            if told.exception is not None:
                fails_well(lambda error=told.exception: _raise(error))  # type: ignore[misc]
            if file not in ("output", "results"):
                assert (place.fit.path / "fit.txt").read_text() == "1\n2\n", (thing, call)


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("turn", range(3 if SOAKED else 1))
def test_living_session_with_its_files_broken(sandbox: Sandbox, turn: int) -> None:
    """What is alive is asked, and no file's content kills it or has a second one started."""
    sandbox.start()
    programs, state = sandbox.programs(), sandbox.state()
    things = ["pipe", "directory", "brackets"]
    broken = dict(
        zip(("session.json", "spawn.json", "engine.json"), things[turn:] + things, strict=False)
    )
    # The certificate, which the engine reads itself, is not among them.
    for name, thing in broken.items():
        good = (state / name).read_bytes()
        THINGS[thing](state / name)
        assert sandbox.status()["state"] == "alive"
        assert sandbox.lc("exec", "--", "echo", "hello").stdout == "hello\n"
        assert sandbox.programs() == programs, name
        remove(state / name)
        (state / name).write_bytes(good)
    for name, thing in broken.items():
        THINGS[thing](state / name)
    sandbox.lc("session", "stop")
    assert sandbox.status()["state"] == "dead"
    assert sandbox.lc("exec", "--", "echo", "hello").stdout == "hello\n"
