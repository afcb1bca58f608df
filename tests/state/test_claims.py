"""Claims: one path, one writer; and what was there before survives an end at any instant."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightcone.errors import SessionError, UsageError
from lightcone.slurm import controller
from lightcone.slurm.controller import Unknown
from lightcone.spec.output import Input, Output
from lightcone.state import journal
from lightcone.state.claims import (
    Busy,
    Claim,
    holder,
    is_interrupted,
    lock_inputs,
    lock_path,
    unfinished_work,
)
from lightcone.state.fingerprint import fingerprint, unchanged
from lightcone.state.journal import JOURNAL_VERSION, Journal, good_log
from lightcone.state.manifest import Manifest, Provenance, read_manifest, stat_token, write_manifest
from lightcone.state.partial import discard_partial, find_partial, products_of, read_failure
from lightcone.state.products import Products
from lightcone.state.tokens import take_tokens
from lightcone.system import files
from lightcone.system.files import flush_tree
from lightcone.system.locks import Lock

_CRASHED = 77
_CHANGES = ("rename", "link", "mkdir", "rmdir", "unlink", "open", "fsync")
_PARTS = Provenance("true", "true")
# A Python that forks while it has threads says so; the children here only touch files.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Place:
    """One output, with what lies at its path and what its state directory says of it."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        self.claims = root / "claims"
        results = root / "results" / "u"
        self.output = Output(
            universe="u",
            id="x",
            root=root,
            place=str(results / ("x" if kind == "directory" else "x.txt")),
            state=str(results / ".lightcone" / "x"),
            is_directory=kind == "directory",
            command="true",
            template="true",
        )

    @property
    def file(self) -> Path:
        """The file that recipes write."""
        return self.output.path / "file" if self.output.is_directory else self.output.path

    @property
    def journal(self) -> Path:
        return self.output.state_dir / "journal.json"

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def put(self, text: str, recorded: bool = True) -> None:
        """Put a result there, as if it had been made long ago."""
        self.file.parent.mkdir(parents=True)
        self.write(text)
        if recorded:
            self.record("before")
            self.log("before")

    def record(self, attempt: str) -> Manifest:
        flush_tree(self.output.path)
        data = fingerprint(self.output.path)
        manifest = Manifest("x", "u", _PARTS.identity, _PARTS, data, {"attempt": attempt})
        if attempt == "before":
            write_manifest(self.output.state_dir, manifest)
        return manifest

    def log(self, text: str) -> None:
        """Begin a log, as an attempt does."""
        self.output.log.unlink(missing_ok=True)
        self.output.log.write_text(text)

    def good_log(self) -> str | None:
        found = good_log(self.output)
        return found.read_text() if found is not None else None

    def take(self) -> Claim:
        claim = Claim.take(self.output, self.claims)
        assert isinstance(claim, Claim), claim
        return claim

    def begin(self) -> Claim:
        """A claim whose recipe has begun."""
        claim = self.take()
        tokens = take_tokens(self.output, ())
        claim.set_aside("lc run, pid 1", 0o022, "identity", tokens=tokens)
        return claim

    def busy(self) -> Busy:
        claim = Claim.take(self.output, self.claims)
        assert isinstance(claim, Busy), claim
        return claim

    def found(self) -> str:
        """What there is: its text, and whether it is known to be good."""
        manifest = read_manifest(self.output.state_dir)
        if not self.file.exists():
            assert manifest is None
            return "nothing"
        good = manifest is not None and unchanged(self.output.path, manifest.data)
        assert good or manifest is None
        return f"{self.file.read_text()}{'' if good else '?'}"

    def partial(self, copy: int = 1) -> str | None:
        """What was kept of a recipe that did not come to its end."""
        name = "partial" if copy == 1 else f"partial.{copy}"
        file = self.output.state_dir / name / self.file.relative_to(self.output.path)
        return file.read_text() if file.exists() else None

    def rewrite_journal(self, **changes: Any) -> None:
        journal = json.loads(self.journal.read_bytes()) | changes
        self.journal.write_text(json.dumps(journal))

    def all_files(self) -> dict[str, bytes]:
        """Every file below the results."""
        results = self.root / "results"
        return {
            str(path.relative_to(results)): path.read_bytes() if path.is_file() else b""
            for path in results.rglob("*")
        }


@pytest.fixture(params=["file", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path.resolve(), request.param)


def _succeed(place: Place) -> None:
    claim = place.begin()
    place.log("of the success")
    place.write("ha")
    place.write("new")
    claim.commit(place.record(claim.attempt))
    claim.release()


def _fail(place: Place) -> None:
    claim = place.begin()
    place.log("of the failure")
    place.write("half")
    claim.restore()
    claim.release()


def _recover(place: Place) -> None:
    place.take().release()


def _run_until(step: Callable[[Place], None], place: Place, number: int) -> bool:
    """Run a step in a process that ends just before its change ``number``; False if it has less."""
    child = os.fork()
    if child == 0:
        _die_at(number)
        try:  # nothing may return into pytest
            step(place)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, _CRASHED)
    return code == _CRASHED


def _die_at(number: int) -> None:
    left = [number]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if real is not os_open or arguments[1] & os.O_CREAT:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(_CRASHED)
            return real(*arguments, **options)

        return call

    os_open = os.open
    for name in _CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def _crashes(step: Callable[[Place], None], place: Place, kept: Path) -> Iterator[str]:
    """Yield after each crash that a step can have, on a fresh copy of what was there before."""
    shutil.copytree(place.root, kept, symlinks=True)
    for number in range(1000):
        shutil.rmtree(place.root)
        shutil.copytree(kept, place.root, symlinks=True)
        if not _run_until(step, place, number):
            assert number > 3
            return
        yield f"{step.__name__} ended before its change {number}"


@pytest.mark.parametrize("step", [_succeed, _fail])
@pytest.mark.parametrize("before", ["old", "old?", "nothing"])
def test_end_at_any_instant(
    place: Place,
    before: str,
    step: Callable[[Place], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place.claims.mkdir()
    if before != "nothing":
        place.put("old", recorded=before == "old")
    seen = set()
    for what in _crashes(step, place, tmp_path_factory.mktemp("kept") / "kept"):
        # Seen from outside, before anybody puts it right.
        manifest = read_manifest(place.output.state_dir)
        written = manifest is not None and manifest.made["attempt"] != "before"
        assert holder(place.output) is None, what
        _recover(place)
        assert place.found() == ("new" if written else before), what
        assert place.partial() in (None, "ha", "new", "half", ""), what
        assert not place.journal.exists(), what
        assert not (place.output.state_dir / "previous").exists(), what
        assert not list(place.output.state_dir.glob(".*.new")), what
        assert not is_interrupted(place.output), what
        log = "before" if before == "old" else None
        assert place.good_log() == ("of the success" if written else log), what
        seen.add(place.found())
    assert seen == ({before, "new"} if step is _succeed else {before})


def test_end_at_any_instant_of_the_recovery(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place.claims.mkdir()
    place.put("old")
    kept = tmp_path_factory.mktemp("kept")
    for number, what in enumerate(_crashes(_succeed, place, kept / "kept")):
        manifest = read_manifest(place.output.state_dir)
        written = manifest is not None and manifest.made["attempt"] != "before"
        for then in _recoveries(place, kept / str(number)):
            _recover(place)
            assert place.found() == ("new" if written else "old"), (what, then)
            assert not place.journal.exists(), (what, then)
            assert not (place.output.state_dir / "previous").exists(), (what, then)
            assert place.good_log() == ("of the success" if written else "before"), (what, then)


def _recoveries(place: Place, kept: Path) -> Iterator[str]:
    shutil.copytree(place.root, kept, symlinks=True)
    for number in range(100):
        if not _run_until(_recover, place, number):
            break
        yield f"the recovery ended before its change {number}"
        shutil.rmtree(place.root)
        shutil.copytree(kept, place.root, symlinks=True)


def test_who_has_read_it_sees_that_it_was_away(place: Place) -> None:
    place.put("old")
    before = stat_token(place.output.state_dir)
    assert before is not None
    claim = place.begin()
    assert stat_token(place.output.state_dir) is None
    claim.restore()
    claim.release()
    assert place.found() == "old"
    assert stat_token(place.output.state_dir) not in (None, before)


def test_claim_given_up_before_anything_was_run_leaves_all_as_it_was(place: Place) -> None:
    place.put("old")
    before = place.all_files()
    claim = place.begin()
    assert place.all_files() != before
    claim.restore()
    claim.release()
    assert place.all_files() == before


def test_partial_work_is_kept_apart(place: Place) -> None:
    place.put("old")
    for text in ("first", "second"):
        claim = place.begin()
        place.write(text)
        claim.release()  # as when the worker has been killed
        assert place.found() == f"{text}?"
        assert is_interrupted(place.output)
        assert unfinished_work(place.output) == len(text)
        _recover(place)
        assert (place.found(), place.partial(), place.partial(2)) == ("old", text, None)
        assert unfinished_work(place.output) == 0
    _succeed(place)
    assert (place.found(), place.partial()) == ("new", None)


def _interrupt(place: Place, text: str, identity: str = "identity") -> list[str]:
    """An attempt that is ended after it has written something; what it remarks."""
    claim = place.take()
    claim.set_aside("lc run, pid 1", 0o022, identity, tokens=take_tokens(place.output, ()))
    claim.remarks.clear()
    place.write(text)
    claim.restore()
    claim.release()
    return claim.remarks


def test_partial_work_is_not_replaced_by_less(place: Place) -> None:
    place.put("old")
    assert _interrupt(place, "26 steps of work") == []
    less = "6 B of partial work is less than the 16 B before it; both are kept"
    assert _interrupt(place, "1 step") == [less]
    assert (place.partial(), place.partial(2)) == ("26 steps of work", "1 step")
    # The same again, or more, in its own place.
    assert _interrupt(place, "2 step") == [less]
    assert (place.partial(), place.partial(2)) == ("26 steps of work", "2 step")
    assert _interrupt(place, "27 steps of work!") == []
    assert (place.partial(), place.partial(2)) == ("27 steps of work!", None)


def test_partial_work_of_another_identity_is_not_replaced(place: Place) -> None:
    _interrupt(place, "26 steps of work", "another")
    assert _interrupt(place, "2 steps") == []
    removed = "6 B of partial work was removed, as there is more of it"
    assert _interrupt(place, "1 step") == [removed]
    assert (place.partial(), place.partial(2)) == ("26 steps of work", "2 steps")
    assert _interrupt(place, "third", "a third") == [
        removed.replace("6", "7"),
    ], "the largest other one stays"
    assert (place.partial(), place.partial(2)) == ("26 steps of work", "third")
    # Each is found again by its own identity.
    for identity, text in (("a third", "third"), ("another", "26 steps of work")):
        claim = place.take()
        claim.set_aside("lc run", 0o022, identity, resume=True)
        assert place.file.read_text() == text
        assert claim.remarks == [f"goes on from {len(text)} B of partial work"]
        claim.restore()
        claim.release()
    assert discard_partial(place.output) == len("26 steps of work" + "third")
    assert [path.name for path in place.output.state_dir.iterdir()] == []


def test_work_that_goes_on_and_is_interrupted_again_is_kept(place: Place) -> None:
    tokens = take_tokens(place.output, ())
    _interrupt(place, "26 steps")
    claim = place.take()
    claim.set_aside("lc run", 0o022, "identity", resume=True, tokens=tokens)
    place.write("27 steps of work")
    claim.restore()
    claim.release()
    assert claim.remarks == ["goes on from 8 B of partial work"]
    assert (place.partial(), place.partial(2)) == ("27 steps of work", None)
    claim = place.take()
    claim.set_aside("lc run", 0o022, "identity", resume=True, tokens=tokens)
    claim.remarks.clear()
    place.write("1 step")
    claim.restore()
    claim.release()
    assert claim.remarks == [
        "the recipe has reduced the 16 B of partial work that it went on from to 6 B"
    ]


def test_keeping_less_work_may_end_at_any_instant(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place.claims.mkdir()
    place.put("old")
    _interrupt(place, "half a day")
    _interrupt(place, "an hour")
    for what in _crashes(_fail, place, tmp_path_factory.mktemp("kept") / "kept"):
        _recover(place)
        assert place.found() == "old", what
        assert place.partial() == "half a day", what
        assert place.partial(2) in ("an hour", "half"), what
        work = find_partial(place.output, "identity")
        assert [copy.obstacle for copy in work] == ["", ""], what


def test_why_partial_work_is_not_gone_on_with(place: Place) -> None:
    _interrupt(place, "half")
    begins = "begins anew, and keeps 4 B of partial work, from which "
    reasons = {
        "identity": "goes on",
        "another": "does not go on: an input, a script, a decision or the command has changed "
        "since",
    }
    for identity, reason in reasons.items():
        claim = place.take()
        claim.set_aside("lc run", 0o022, identity, resume=identity != "identity")
        by = "'--resume'" if identity == "identity" else "it"
        assert claim.remarks == [f"{begins}{by} {reason}"]
        claim.restore()
        claim.release()
    template = place.output
    place.output = replace(template, template="false")
    claim = place.take()
    claim.set_aside("lc run", 0o022, "another", resume=True)
    assert claim.remarks == [
        begins + "it does not go on: the recipe's command has changed since",
    ]
    claim.restore()
    claim.release()
    (place.output.state_dir / "partial.json").write_text("{")
    claim = place.take()
    claim.set_aside("lc run", 0o022, "identity", resume=True)
    assert claim.remarks == [begins + "it does not go on: what it was made for is not recorded"]
    claim.restore()
    claim.release()


class _Fed:
    """An output of a script and of inputs, a file and a tree."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.data = place.root / "data"
        (self.data / "deep").mkdir(parents=True)
        for name in ("in", "deep/a", "deep/b"):
            (self.data / name).write_text("old")
        self.script = place.root / "fit.py"
        self.script.write_text("pass\n")
        inputs = (
            Input("raw", "data/in", str(self.data / "in"), None),
            Input("tree", "data/deep", str(self.data / "deep"), "other"),
            Input("name", "a text", None, None),
        )
        place.output = replace(place.output, inputs=inputs)

    def begin(self, *, resume: bool = False) -> Claim:
        """A claim whose recipe has begun to write."""
        claim = self.place.take()
        tokens = take_tokens(self.place.output, ["fit.py"])
        claim.set_aside("lc run, pid 1", 0o022, "identity", resume=resume, tokens=tokens)
        self.place.write("half")
        return claim

    def obstacles(self) -> list[str]:
        return [work.obstacle for work in find_partial(self.place.output, "identity")]


def test_work_of_inputs_that_changed_is_kept_and_not_gone_on_with(place: Place) -> None:
    fed = _Fed(place)
    claim = fed.begin()
    claim.restore("input raw (data/in) changed after it was begun")
    claim.release()
    changed = "input raw (data/in) changed after it was begun"
    assert (place.partial(), fed.obstacles()) == ("half", [changed])
    claim = fed.begin(resume=True)
    assert claim.remarks == [
        "begins anew, and keeps 4 B of partial work, from which it does not go on: " + changed
    ]
    # What a recipe can go on from is not replaced by what it cannot, and comes first.
    claim.restore("")
    claim.release()
    for text in ("a longer one", "the longest of these"):
        claim = fed.begin()
        place.write(text)
        claim.restore("a.py changed after it was begun")
        claim.release()
    assert claim.remarks[1:] == []
    sizes = [(work.size, bool(work.obstacle)) for work in find_partial(place.output, "identity")]
    assert sizes == [(len("half"), False), (len("the longest of these"), True)]


def _touch_script(fed: _Fed) -> None:
    fed.script.write_text("other\n")
    fed.script.write_text("pass\n")


def _exchange_input(fed: _Fed) -> None:
    os.rename(fed.data / "in", fed.data / "kept")
    (fed.data / "in").write_text("new")
    os.rename(fed.data / "kept", fed.data / "in")


def _rewrite_tree(fed: _Fed) -> None:
    (fed.data / "deep" / "b").write_text("old")


def _exchange_tree(fed: _Fed) -> None:
    os.rename(fed.data / "deep", fed.data / "kept")
    os.rename(fed.data / "kept", fed.data / "deep")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda _: None, ""),
        (_touch_script, "fit.py"),
        (_exchange_input, "input raw (data/in)"),
        (_rewrite_tree, "input tree (data/deep)"),
        (_exchange_tree, "input tree (data/deep)"),
    ],
)
def test_work_of_a_killed_recipe_is_gone_on_with_if_its_inputs_were_left_alone(
    place: Place, change: Callable[[_Fed], None], what: str
) -> None:
    """Nobody compared the bytes when it ended, and the same may be there again."""
    fed = _Fed(place)
    claim = fed.begin()
    change(fed)
    claim.release()  # as when the worker has been killed
    _recover(place)
    assert place.partial() == "half"
    assert fed.obstacles() == [what and f"{what} changed after it was begun"]


def test_work_of_a_killed_recipe_that_recorded_no_inputs_is_not_gone_on_with(place: Place) -> None:
    claim = place.begin()
    place.write("half")
    place.rewrite_journal(tokens=None)
    claim.release()
    _recover(place)
    (work,) = find_partial(place.output, "identity")
    assert work.obstacle == "what it was made from is not recorded"


def test_success_says_that_it_removes_older_work(place: Place) -> None:
    _interrupt(place, "half")
    claim = place.begin()
    claim.remarks.clear()
    place.write("new")
    claim.commit(place.record(claim.attempt))
    claim.release()
    assert claim.remarks == ["4 B of older partial work was removed"]
    assert place.partial() is None


def test_products_of_a_killed_recipe_are_told_from_sources(place: Place) -> None:
    """What it found is in the journal, as it did not live to record what it left."""
    place.root.joinpath("config.txt").write_text("1")
    command = "fit config.txt fit.log"
    place.output = replace(place.output, command=command, template=command)
    products = Products(place.output, Provenance(command, command))
    claim = place.take()
    claim.set_aside("lc run, pid 1", 0o022, "identity", found=products.found())
    place.write("half")
    place.root.joinpath("fit.log").write_text("step 1")
    claim.release()
    again = place.take()
    assert again.is_recovered
    again.release()
    failure = read_failure(place.output.state_dir)
    assert failure is not None
    assert (failure["products"], failure["interrupted"]) == (["fit.log"], True)
    assert failure["reason"] == "lc run, pid 1 was killed before it was done"
    assert products_of(failure, place.output) == {"fit.log"}
    # What was a product stays one, though the next recipe finds it.
    products = Products(place.output, Provenance(command, command))
    assert products.found() == ["config.txt"]


def test_partial_work_can_be_gone_on_with_or_discarded(place: Place) -> None:
    _fail(place)
    claim = place.take()
    claim.set_aside("lc run", 0o022, "another identity", resume=True)
    assert not place.file.exists()
    claim.restore()
    claim.set_aside("lc run", 0o022, "identity", resume=True)
    assert place.file.read_text() == "half"
    claim.restore()
    claim.release()
    assert place.partial() == "half"
    assert discard_partial(place.output) >= len("half")
    assert discard_partial(place.output) == 0
    assert place.partial() is None


def test_log_of_the_good_result_stays_while_later_attempts_fail(place: Place) -> None:
    place.put("old")
    for _ in range(2):
        _fail(place)
        assert (place.good_log(), place.output.log.read_text()) == ("before", "of the failure")
    _succeed(place)
    assert place.good_log() == place.output.log.read_text() == "of the success"
    assert not place.output.good_log.exists()
    _fail(place)
    shutil.rmtree(place.output.path, ignore_errors=True)
    place.output.path.unlink(missing_ok=True)
    _fail(place)  # with nothing to be good any more
    assert place.good_log() is None
    assert not place.output.good_log.exists()


def test_log_of_a_failure_is_not_taken_for_that_of_a_result_made_elsewhere(place: Place) -> None:
    place.put("old")
    found = read_manifest(place.output.state_dir)
    assert found is not None
    write_manifest(place.output.state_dir, replace(found, made={"host": "elsewhere"}))
    for _ in range(2):
        _fail(place)
        assert place.good_log() is None


def test_partial_work_of_another_name_is_not_gone_on_with(place: Place) -> None:
    _fail(place)
    note = place.output.state_dir / "partial.json"
    note.write_text(json.dumps(json.loads(note.read_bytes()) | {"name": "other"}))
    claim = place.take()
    claim.set_aside("lc run", 0o022, "identity", resume=True)
    assert not place.file.exists()
    claim.restore()
    claim.release()


def test_what_nobody_has_taken_away_is_no_partial_work(place: Place) -> None:
    leftover = place.output.state_dir / "partial.new"
    leftover.mkdir(parents=True)
    claim = place.take()
    claim.set_aside("lc run", 0o022, "identity")
    claim.restore()
    claim.release()
    assert not leftover.exists()
    assert not (place.output.state_dir / "partial").exists()


def _no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_partial_work_is_kept_without_links(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = place.take()
    claim.set_aside("lc run", 0o027, "identity")
    place.write("half")
    monkeypatch.setattr(os, "link", _no_links)
    before = os.umask(0o077)
    try:
        claim.restore()
    finally:
        os.umask(before)
    claim.release()
    assert place.partial() == "half"
    note = place.output.state_dir / "partial.json"
    assert note.stat().st_mode & 0o777 == 0o640
    assert json.loads(note.read_bytes())["identity"] == "identity"


def test_directory_is_made_for_the_recipe_with_its_umask(place: Place) -> None:
    claim = place.take()
    claim.set_aside("lc run", 0o027, "identity")
    if place.output.is_directory:
        assert list(place.output.path.iterdir()) == []
        assert place.output.path.stat().st_mode & 0o777 == 0o750
    else:
        assert not place.output.path.exists()
    claim.restore()
    claim.release()
    assert place.found() == "nothing"
    assert not (place.output.state_dir / "partial").exists()


def test_claim_is_exclusive_until_it_is_released(place: Place) -> None:
    claim = place.take()
    assert place.busy().lock == lock_path(place.claims, place.output.path)
    claim.set_aside("lc run, pid 7", 0o022, "identity")
    assert place.busy().by.startswith(f"lc run, pid 7 on {socket.gethostname()} since ")
    claim.restore()
    claim.release()
    place.take().release()


@pytest.fixture
def child() -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts a process that holds a descriptor until it is ended."""
    children = []

    def start(descriptor: int) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", "import time; print(flush=True); time.sleep(1000)"]
        process = subprocess.Popen(program, pass_fds=[descriptor], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        children.append(process)
        return process

    yield start
    for process in children:
        process.kill()
        process.wait()


def test_claim_lasts_as_long_as_any_process_of_the_recipe(
    place: Place, child: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    place.put("old")
    claim = place.begin()
    place.write("half")
    process = child(claim.lock.fd)
    claim.lock.close()  # as when the worker has been killed
    found = holder(place.output)
    assert found is not None and found.by == place.busy().by
    reader = lock_inputs(place.claims, [(place.output.path, place.output.state_dir)])
    assert isinstance(reader, Busy) and reader.shared
    assert place.found() == "half?"
    process.kill()
    process.wait()
    assert holder(place.output) is None
    assert is_interrupted(place.output)
    before = stat_token(place.output.state_dir)
    _recover(place)
    assert place.found() == "old"
    assert stat_token(place.output.state_dir) != before


def test_input_is_not_remade_while_any_recipe_reads_it(
    place: Place, child: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    place.put("old")
    place.claims.mkdir()
    first, second = (
        lock_inputs(place.claims, [(place.output.path, place.output.state_dir)]) for _ in range(2)
    )
    assert not isinstance(first, Busy) and not isinstance(second, Busy)
    process = child(first[0].fd)
    for lock in (*first, *second):
        lock.close()
    busy = place.busy()
    assert (busy.by, busy.lock) == (
        "a recipe that reads it",
        lock_path(place.claims, place.output.path),
    )
    process.kill()
    process.wait()
    _recover(place)


def test_locks_of_inputs_are_given_up_when_one_of_them_is_being_made(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    claims.mkdir()
    inputs = [(tmp_path / name, tmp_path / "state" / name) for name in ("a", "b")]
    writer = Lock(lock_path(claims, tmp_path / "b"))
    assert writer.acquire()
    busy = lock_inputs(claims, inputs)
    assert isinstance(busy, Busy)
    assert busy.by == "its input b, which is being made"
    assert Lock.is_free(lock_path(claims, tmp_path / "a"), including_shared=True)
    writer.release()
    locks = lock_inputs(claims, inputs)
    assert not isinstance(locks, Busy) and len(locks) == 2
    for lock in locks:
        lock.release()


def test_locks_of_inputs_are_given_up_when_one_of_them_cannot_be_had(tmp_path: Path) -> None:
    inputs = [(tmp_path / name, tmp_path / "state" / name) for name in ("a", "b")]
    lock_path(tmp_path, tmp_path / "b").mkdir()
    with pytest.raises(SessionError):
        lock_inputs(tmp_path, inputs)
    assert Lock.is_free(lock_path(tmp_path, tmp_path / "a"), including_shared=True)


def test_claim_is_given_up_when_what_was_left_cannot_be_removed(place: Place) -> None:
    place.put("old")
    (place.output.state_dir / ".x.new").mkdir()
    with pytest.raises(OSError):
        Claim.take(place.output, place.claims)
    assert Lock.is_free(lock_path(place.claims, place.output.path), including_shared=True)


def test_result_is_made_though_what_was_before_cannot_be_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("old")
    claim = place.begin()
    place.write("new")
    with monkeypatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "refused")

        patch.setattr(os, "unlink", refuse)
        claim.commit(place.record(claim.attempt))
    claim.release()
    assert place.found() == "new"
    assert not is_interrupted(place.output)
    place.take().release()
    assert (place.found(), place.journal.exists()) == ("new", False)


@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
def test_result_is_made_if_its_manifest_is_there(
    place: Place, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """An error before the manifest is in place is one of the output; an error after it is not."""
    place.put("old")
    claim = place.begin()
    place.write("new")
    manifest = place.record(claim.attempt)
    state = place.output.state_dir
    with monkeypatch.context() as patch:

        def refuse(*arguments: object, **_: object) -> None:
            raise OSError(errno.EIO, "the disk refuses", str(arguments[0]))

        patch.setattr(files, "flush_to_disk" if written else "write_new", refuse)
        if written:
            claim.commit(manifest)
        else:
            with pytest.raises(OSError, match="the disk refuses"):
                claim.commit(manifest)
    assert (state / "manifest.json").exists() == written
    claim.restore()
    claim.release()
    assert place.found() == ("new" if written else "old")


def test_locks_do_not_look_old_to_a_cleaner(place: Place) -> None:
    lock, now = lock_path(place.claims, place.output.path), time.time()
    place.claims.mkdir()
    for is_read in (False, True):
        lock.touch()
        os.utime(lock, (now - 40 * 86400, now - 40 * 86400))
        if is_read:
            taken = lock_inputs(place.claims, [(place.output.path, place.output.state_dir)])
            assert not isinstance(taken, Busy)
            taken[0].release()
        else:
            place.take().release()
        assert lock.stat().st_mtime >= now - 1


def test_lock_that_a_cleaner_removed_as_it_was_taken_is_taken_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.claims.mkdir()
    take = Lock.acquire
    removed: list[Path] = []

    def removing(lock: Lock, **options: Any) -> bool:
        taken = take(lock, **options)
        if not removed:
            os.unlink(lock.path)
            removed.append(lock.path)
        return taken

    monkeypatch.setattr(Lock, "acquire", removing)
    claim = place.take()
    assert removed and os.path.samestat(os.fstat(claim.lock.fd), os.stat(claim.lock.path))
    claim.release()


def _left_by(place: Place, other: Lock | None = None, **journal: Any) -> None:
    """Leave what another context leaves that was killed over a good result.

    Its lock is ``other``, or else one that is nowhere to be found.
    """
    place.put("old")
    claim = place.begin()
    place.write("half")
    os.truncate(claim.lock.path, 0)
    place.rewrite_journal(lock=str(place.root / "gone.lock"), lock_inode=0)
    if other is not None:
        other.mark(claim.attempt)
        status = os.fstat(other.fd)
        device, inode = status.st_dev, status.st_ino
        place.rewrite_journal(lock=str(other.path), lock_device=device, lock_inode=inode)
    place.rewrite_journal(**journal)
    claim.release()


def _is_left_alone(place: Place) -> bool:
    before = place.all_files()
    busy = place.busy()
    assert busy.lock is None
    assert holder(place.output) == busy
    assert place.all_files() == before
    return place.found() == "half?"


def test_claim_of_another_context_is_left_alone_while_it_lives(place: Place) -> None:
    other = Lock(place.root / "other.lock")
    assert other.acquire(shared=True)
    _left_by(place, other, run="lc run, pid 5")
    assert place.busy().by.startswith("lc run, pid 5 on ")
    assert _is_left_alone(place)
    other.release()
    assert holder(place.output) is None
    _recover(place)
    assert (place.found(), place.partial()) == ("old", "half")


def test_input_that_another_context_is_making_is_not_read(place: Place) -> None:
    other = Lock(place.root / "other.lock")
    assert other.acquire(shared=True)
    _left_by(place, other)
    inputs = [(place.output.path, place.output.state_dir)]
    busy = lock_inputs(place.claims, inputs)
    assert isinstance(busy, Busy) and busy.lock is None
    assert Lock.is_free(lock_path(place.claims, place.output.path), including_shared=True)
    other.release()
    locks = lock_inputs(place.claims, inputs)
    assert not isinstance(locks, Busy)
    locks[0].release()


_HERE = "this very host"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is certain, which it is not in a container."""
    monkeypatch.setattr(journal, "machine_id", lambda: _HERE)


def test_claim_of_this_host_before_it_was_started_anew_is_over(place: Place, machine: None) -> None:
    _left_by(place, boot_id="0" * 64)
    assert holder(place.output) is None
    assert is_interrupted(place.output)
    _recover(place)
    assert (place.found(), place.partial()) == ("old", "half")


def test_claim_of_another_host_is_left_alone(place: Place, machine: None) -> None:
    _left_by(place, boot_id="0" * 64, host="elsewhere", machine="another one")
    assert _is_left_alone(place)
    assert "whose end is only known there: if it has ended, start 'lc run' on elsewhere once" in (
        place.busy().by
    )


@pytest.mark.parametrize("theirs", ["another one", None, 7])
def test_claim_of_another_host_of_the_same_name_is_left_alone(
    place: Place, machine: None, theirs: object
) -> None:
    """Two hosts, or containers of one image; or one of before there was more than the name."""
    _left_by(place, boot_id="0" * 64, machine=theirs)
    assert json.loads(place.journal.read_bytes())["host"] == socket.gethostname()
    assert _is_left_alone(place)


def test_claim_of_a_host_that_is_not_certain_is_left_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "machine_id", lambda: None)
    _left_by(place, boot_id="0" * 64)
    assert _is_left_alone(place)


def test_lock_of_another_host_at_the_same_path_is_another_lock(place: Place) -> None:
    """As with the default scratch directory, which every host has for itself."""
    lock = str(lock_path(place.claims, place.output.path))
    _left_by(place, boot_id="0" * 64, machine=None, lock=lock)
    assert Path(lock).exists()
    assert _is_left_alone(place)
    inputs = [(place.output.path, place.output.state_dir)]
    assert isinstance(lock_inputs(place.claims, inputs), Busy)


def test_lock_of_another_host_on_a_shared_scratch_is_the_same_lock(place: Place) -> None:
    """Its device has another number there. Who takes it needs no other proof."""
    place.put("old")
    claim = place.begin()
    place.write("half")
    place.rewrite_journal(boot_id="0" * 64, machine=None, lock_device=0)
    assert place.busy().lock == claim.lock.path
    claim.release()
    _recover(place)
    assert (place.found(), place.partial()) == ("old", "half")


def test_lock_on_a_full_disk_is_known_by_its_inode(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", _no_links)
    claim = place.begin()
    assert claim.lock.path.stat().st_size == 0
    assert holder(place.output) is not None
    claim.release()
    assert holder(place.output) is None
    _recover(place)


def test_slurm_is_asked_once_for_all_outputs_of_a_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that is away takes seconds to be given up, for each question."""
    _left_by(place, boot_id="0" * 64, machine=None, host="elsewhere", job=7, cluster="c")
    asked = []

    def ask(timeout: float = 5.0) -> Unknown:
        asked.append(timeout)
        return Unknown("scontrol did not answer within 5 s")

    monkeypatch.setattr(controller, "cluster_name", ask)
    monkeypatch.setattr(journal, "_ended_jobs", {})
    for _ in range(3):
        found = holder(place.output)
        assert found is not None and "whose end is only known there" in found.by
    assert len(asked) == 1


def test_claim_whose_lock_was_cleaned_away_is_left_alone(
    place: Place, child: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    """The recipe may run on, and nothing can be asked about it."""
    place.put("old")
    claim = place.begin()
    place.write("half")
    process = child(claim.lock.fd)
    claim.lock.close()
    claim.lock.path.unlink()
    assert _is_left_alone(place)
    assert claim.lock.path.exists(), "made again by who looked"
    assert _is_left_alone(place)
    by = place.busy().by
    assert "whose end is unknown, as its lock is not the file that is at its path here" in by
    assert by.endswith(f"remove {place.journal}")
    process.kill()
    process.wait()
    place.journal.unlink()  # as the message says
    _recover(place)
    assert (place.found(), place.partial()) == ("old", "half")


def test_claim_of_a_container_on_this_host_is_left_alone(place: Place) -> None:
    """It has the same kernel, and a scratch directory that is not seen from here."""
    for host in ("4f2a", socket.gethostname()):
        shutil.rmtree(place.root / "results", ignore_errors=True)
        _left_by(place, host=host)
        assert _is_left_alone(place)
        assert "as its lock is not to be found from here" in place.busy().by


def test_claim_whose_lock_cannot_be_asked_is_left_alone(place: Place) -> None:
    _left_by(place, lock=str(place.root))  # a directory, which no lock file can be
    assert _is_left_alone(place)
    os.mkfifo(place.root / "pipe")
    place.rewrite_journal(lock=str(place.root / "pipe"))
    assert _is_left_alone(place)
    place.rewrite_journal(lock="a\0b")
    assert _is_left_alone(place)


def test_of_two_contexts_that_find_a_holder_dead_one_recovers(
    place: Place, machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share no lock; the second one looks while the first is at it."""
    _left_by(place, boot_id="0" * 64)
    settle = Journal.settle
    seen: list[Claim | Busy] = []

    def settling(journal: Journal, record: dict[str, Any]) -> list[str]:
        if not seen:
            seen.append(Claim.take(place.output, place.root / "other claims"))
            assert place.file.read_text() == "half"
        return settle(journal, record)

    monkeypatch.setattr(Journal, "settle", settling)
    _recover(place)
    assert isinstance(seen[0], Busy)
    assert (place.found(), place.partial()) == ("old", "half")


def test_recovery_of_another_context_may_end_at_any_instant(
    place: Place, machine: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _left_by(place, boot_id="0" * 64)
    for what in _crashes(_recover, place, tmp_path_factory.mktemp("kept") / "kept"):
        _recover(place)
        assert (place.found(), place.partial()) == ("old", "half"), what
        assert not place.journal.exists(), what


def test_journal_of_version_1_is_known_by_the_path_of_its_lock_in_one_boot(place: Place) -> None:
    claim = place.begin()
    table = json.loads(place.journal.read_bytes())
    new = {"lock_device", "lock_inode", "machine"}
    old = {name: value for name, value in table.items() if name not in new} | {"version": 1}
    os.truncate(claim.lock.path, 0)
    place.journal.write_text(json.dumps(old | {"boot_id": "0" * 64}))
    claim.release()
    assert holder(place.output) is not None
    assert isinstance(Claim.take(place.output, place.claims), Busy)
    place.journal.write_text(json.dumps(old))
    assert holder(place.output) is None
    _recover(place)


def test_journal_in_a_directory_that_may_not_be_entered_may_be_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may enter every one, so that this is told to the code alone; see tests/security."""
    place.put("old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "stat", _refused)
    monkeypatch.setattr(journal, "read_object", _refused)
    found = holder(place.output)
    monkeypatch.undo()
    assert found is not None and "which cannot be read (Permission denied)" in found.by


def _refused(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_damaged_journal_beside_an_adopted_result_loses_no_partial_work(place: Place) -> None:
    """Such a result has no attempt either; that is not the same one."""
    place.put("old")
    found = read_manifest(place.output.state_dir)
    assert found is not None
    write_manifest(place.output.state_dir, replace(found, made={"host": "elsewhere"}))
    (place.output.state_dir / "partial.new").mkdir()
    kept = place.output.state_dir / "partial.new" / place.file.relative_to(place.output.path)
    if not place.output.is_directory:
        kept.rmdir()
    kept.write_text("half")
    place.journal.write_bytes(b"")
    assert is_interrupted(place.output)
    _recover(place)
    assert (place.found(), place.partial()) == ("old", "half")
    assert not place.journal.exists()


@pytest.mark.parametrize("content", [b"", b'{"had', b"[]", b"\xff\xfe", b"null", b"{}"])
def test_damaged_journal_loses_nothing(place: Place, content: bytes) -> None:
    place.put("old")
    claim = place.begin()
    place.write("half")
    place.journal.write_bytes(content)
    claim.release()
    assert is_interrupted(place.output)
    _recover(place)
    assert (place.found(), place.partial()) == ("old", "half")
    _succeed(place)
    place.journal.write_bytes(content)
    _recover(place)
    assert place.found() == "new"
    assert not place.journal.exists()


def test_journal_with_more_in_it_is_understood(place: Place) -> None:
    place.put("old")
    claim = place.begin()
    place.write("half")
    place.rewrite_journal(more={"things": [1]})
    claim.release()
    _recover(place)
    assert place.found() == "old"


def test_journal_without_anything_else_is_forgotten(place: Place) -> None:
    claim = place.begin()
    claim.release()
    shutil.rmtree(place.output.path.parent / "x", ignore_errors=True)
    _recover(place)
    assert place.found() == "nothing"
    assert not place.journal.exists()


def test_one_lock_for_every_name_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    names = ("real", "link", "link/../real")
    found = {lock_path(tmp_path, tmp_path / name / "x") for name in names}
    assert len(found) == 1
    assert lock_path(tmp_path, tmp_path / "real" / "y") not in found


def test_link_at_the_path_is_set_aside_and_put_back_as_it_is(place: Place) -> None:
    target = place.root / "data"
    target.mkdir()
    (target / "file").write_text("kept")
    place.output.path.parent.mkdir(parents=True)
    place.output.path.symlink_to(target)
    claim = place.begin()
    assert not place.output.path.is_symlink()
    claim.restore()
    claim.release()
    assert place.output.path.is_symlink()
    assert (target / "file").read_text() == "kept"
    _succeed(place)
    assert not place.output.path.is_symlink()
    assert (target / "file").read_text() == "kept"


def test_result_on_another_file_system_is_not_touched(place: Place) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == place.root.stat().st_dev:
        pytest.skip("there is no second file system to write to")
    other = elsewhere / f"lightcone-test-{os.getpid()}-{place.output.is_directory}"
    other.mkdir()
    try:
        place.put("old")
        (place.root / "state").symlink_to(other)
        place.output = replace(place.output, state=str(place.root / "state"))
        claim = place.take()
        with pytest.raises(UsageError, match="another file system"):
            claim.set_aside("lc run", 0o022, "identity")
        claim.release()
        assert place.file.read_text() == "old"
        assert not list(other.iterdir())
    finally:
        shutil.rmtree(other)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors cannot be named here")
def test_what_was_there_reaches_the_disk_before_it_is_forgotten(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("old")
    done: list[str] = []
    for name in ("rename", "link", "unlink", "fsync"):
        monkeypatch.setattr(os, name, _told(name, getattr(os, name), place, done))
    _fail(place)
    set_aside = done[: done.index("rename partial")] if "rename partial" in done else done
    assert set_aside.index("fsync .journal") < set_aside.index("link journal")
    assert set_aside.index("link journal") < set_aside.index("rename manifest")
    back = len(done) - 1 - done[::-1].index("rename output")
    assert "fsync results" in done[back : done.index("unlink journal")]
    assert "fsync state" in done[back : done.index("unlink journal")]
    done.clear()
    _succeed(place)
    written = len(done) - 1 - done[::-1].index("rename manifest")
    assert "fsync state" in done[written : done.index("unlink journal")]


def _told(name: str, real: Callable[..., Any], place: Place, done: list[str]) -> Callable[..., Any]:
    """A function that notes its calls, with what they are about, and does what it always does."""
    results, state = place.output.path.parent, place.output.state_dir

    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        if name == "fsync":
            where = Path(os.readlink(f"/proc/self/fd/{path}"))
            known = {results: "results", state: "state"}
            what = known.get(where, where.name.rpartition(".json")[0])
        else:
            to = Path(os.fspath(arguments[0] if name in ("rename", "link") else path))
            what = "output" if to == place.output.path else to.name.partition(".")[0]
        done.append(f"{name} {what}")
        return real(path, *arguments, **options)

    return call


def test_of_two_contexts_that_begin_at_once_one_has_the_path(place: Place) -> None:
    place.put("old")
    ours = place.take()
    theirs = Claim.take(place.output, place.root / "other claims")
    assert isinstance(theirs, Claim), "they share no lock"
    assert ours.set_aside("lc run, pid 1", 0o022, "identity") is None
    other = theirs.set_aside("lc run, pid 2", 0o022, "identity")
    theirs.release()
    assert isinstance(other, Busy)
    assert "pid 1" in other.by
    assert (place.output.state_dir / "previous").exists(), "what the other set aside is there"
    later = Claim.take(place.output, place.root / "other claims")
    assert isinstance(later, Busy)
    ours.restore()
    ours.release()
    assert place.found() == "old"
    again = Claim.take(place.output, place.root / "other claims")
    assert isinstance(again, Claim)
    again.release()


def test_journal_is_readable_by_later_versions(place: Place) -> None:
    claim = place.begin()
    journal = json.loads(place.journal.read_bytes())
    assert set(journal) == {
        "version", "attempt", "run", "lock", "lock_device", "lock_inode", "host", "machine",
        "boot_id", "job", "cluster", "started", "had_output", "identity", "name", "template",
        "found", "tokens",
    }  # fmt: skip
    assert journal["version"] == JOURNAL_VERSION == 2
    claim.restore()
    claim.release()
