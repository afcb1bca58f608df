"""A disk without room: said in a sentence, nothing lost, and with room again the rest is made."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox, wait_until
from tests.run.analyses import Analysis, output, succeed
from tests.run.disks import fill, mounted

_NO_ROOM = (
    "there is no room left on the disk of {}: make some ('lc clean' removes partial work), and run "
    "again"
)
_WRITES = 'head -c "$(cat "$PLACE/size")k" /dev/urandom > {output}'


@pytest.fixture
def small(sandbox: Sandbox) -> Iterator[Analysis]:
    """An analysis whose results are on a disk of a megabyte, and 100 kB of them good."""
    analysis = Analysis(sandbox)
    results = analysis.root / "results"
    results.mkdir()
    with mounted(results):
        analysis.spec(output("x", _WRITES, suffix="bin"))
        _size(analysis, 100)
        analysis.run()
        analysis.made()
        yield analysis
        analysis.close()
        sandbox.lc("session", "stop")


def _size(analysis: Analysis, kilobytes: int) -> None:
    (analysis.place / "size").write_text(str(kilobytes))


def _good(analysis: Analysis) -> dict[str, bytes]:
    """The result and the record that it is good."""
    found = (analysis.path("x", suffix="bin"), analysis.state("x") / "manifest.json")
    return {path.name: path.read_bytes() for path in found}


def _no_room(analysis: Analysis) -> str:
    return _NO_ROOM.format(analysis.root / "results" / "baseline")


def _fails(analysis: Analysis, reason: str) -> str:
    """Fail to make it again, for a reason, and lose nothing by it."""
    before = _good(analysis)
    result = analysis.run("-f", check=1)
    assert result.stderr == ""
    assert f"baseline/x: FAILED, {reason}\n" in result.stdout
    assert _good(analysis) == before
    assert analysis.states() == {"x": "ok"}
    assert analysis.leftovers() == []
    assert analysis.summary()["up_to_date"] == 1
    return result.stdout


def _can_be_made(analysis: Analysis) -> None:
    """It is made again, now that there is room."""
    before = _good(analysis)
    analysis.made()
    assert analysis.summary("-f")["made"] == 1
    assert analysis.made() == ["x"]
    assert _good(analysis) != before
    assert analysis.leftovers() == []
    assert analysis.summary()["up_to_date"] == 1


def test_recipe_that_finds_no_room(small: Analysis) -> None:
    _size(small, 5000)
    told = _fails(small, f"exit code 1; {_no_room(small)}")
    assert "No space left on device" in told
    assert f"# failed: exit code 1; {_no_room(small)}\n" in small.box.lc("log", "x").stdout
    _size(small, 100)
    assert "freed " in small.box.lc("clean").stdout
    _can_be_made(small)


def test_partial_work_that_has_filled_the_disk_can_be_gone_on_with(small: Analysis) -> None:
    resumes = f"if [ -e {{output}} ]; then echo whole > {{output}}; else {_WRITES}; fi"
    small.spec(output("x", resumes, suffix="bin"))
    _size(small, 100)
    small.run()
    _size(small, 5000)
    _fails(small, f"exit code 1; {_no_room(small)}")
    subprocess.run(
        ["mount", "-o", "remount,size=2m", str(small.root / "results")], check=True, timeout=30
    )
    small.run("-f", "--resume")
    assert small.path("x", suffix="bin").read_text() == "whole\n"


@pytest.mark.parametrize(
    "leave", [pytest.param(0, id="for the journal"), pytest.param(1, id="for the log")]
)
def test_no_room_at_the_start(small: Analysis, leave: int) -> None:
    small.made()
    filler = fill(small.root / "results", leave)
    log = small.box.lc("log", "x", "--good").stdout
    _fails(small, _no_room(small))
    assert small.made() == []
    assert small.box.lc("log", "x", "--good").stdout == log
    filler.unlink()
    _can_be_made(small)


def test_no_room_for_the_manifest(small: Analysis) -> None:
    filler = small.root / "results" / "filler"
    fills = f"{_WRITES}; if [ -e $PLACE/fill ]; then cat /dev/zero > {filler} || true; fi"
    small.spec(output("x", fills, suffix="bin"))
    small.run()
    small.open("fill")
    _fails(small, _no_room(small))
    filler.unlink()
    (small.place / "fill").unlink()
    _can_be_made(small)


def test_result_is_made_though_the_log_has_no_room(small: Analysis) -> None:
    filler = small.root / "results" / "filler"
    talks = f"{_WRITES}; echo before; cat /dev/zero > {filler} || true; seq 50000; rm {filler}"
    small.spec(output("x", talks, suffix="bin"))
    assert small.summary()["made"] == 1
    log = small.box.lc("log", "x").stdout
    assert re.search(r"\n# \d+ bytes are missing here: the disk was full\n# exit code 0 ", log)
    assert "\nbefore\n" in log
    assert small.summary()["up_to_date"] == 1


def test_first_result_without_room(small: Analysis) -> None:
    small.spec(
        output("first", "echo 1 > {output}"), output("then", "cat {inputs} > {output}", ("first",))
    )
    filler = fill(small.root / "results")
    told = small.run(check=1).stdout
    assert f"baseline/first: FAILED, {_no_room(small)}\n" in told
    assert small.states() == {"first": "missing", "then": "missing"}
    filler.unlink()
    assert small.summary()["made"] == 2
    assert small.leftovers() == []


def test_killed_on_a_full_disk_it_is_put_back_by_the_next_run(small: Analysis) -> None:
    waits = f"{_WRITES}; touch $PLACE/begun; until [ -e $PLACE/gate ]; do sleep 0.05; done"
    small.spec(output("x", waits, suffix="bin"))
    small.open("gate")
    small.run()
    before = _good(small)
    for name in ("gate", "begun"):
        (small.place / name).unlink()
    program = small.begin("-f")
    small.began("begun")
    filler = fill(small.root / "results")
    small.kill_all(program)
    told = small.run().stdout
    assert told.startswith("lc: 1 up to date")
    assert _good(small) == before
    assert small.leftovers() == []
    filler.unlink()
    small.open("gate")
    _can_be_made(small)


@pytest.fixture
def cramped(sandbox: Sandbox) -> Iterator[Analysis]:
    """An analysis whose scratch is a disk of a megabyte."""
    with mounted(sandbox.scratch) as scratch:
        analysis = Analysis(sandbox)
        yield analysis
        analysis.close()
        (scratch / "filler").unlink(missing_ok=True)
        sandbox.lc("session", "stop")


@pytest.mark.parametrize("leave", [0, 1, 2, 3, 4])
def test_session_that_has_no_room_to_start(cramped: Analysis, leave: int) -> None:
    cramped.spec(output("x", "echo 1 > {output}"))
    filler = fill(cramped.box.scratch, leave)
    result = cramped.run(check=3)
    assert re.fullmatch(
        r"lc: The session lc-project-\w+ (cannot be started|ended while it was starting), as there "
        r"is no room left on the disk of [^\n]+: make some, or set LIGHTCONE_SCRATCH to a "
        r"directory on another\.\n",
        result.stderr,
    )
    filler.unlink()
    assert cramped.summary()["made"] == 1


def test_scratch_that_is_full_during_a_run(cramped: Analysis) -> None:
    waits = "touch $PLACE/begun; until [ -e $PLACE/gate ]; do sleep 0.05; done; "
    cramped.spec(
        output("x", waits + "echo 1 > {output}"),
        *(output(f"y{n}", "cat {inputs} > {output}", ("x",)) for n in range(3)),
    )
    run = cramped.begin()
    cramped.began("begun")
    filler = fill(cramped.box.scratch)
    cramped.open("gate")
    succeed(run)
    assert cramped.box.lc("exec", "--", "echo", "hello").stdout == "hello\n"
    assert set(cramped.states().values()) == {"ok"}
    assert cramped.box.lc("session", "stop").returncode == 0
    filler.unlink()
    assert cramped.summary()["up_to_date"] == 4


def test_scratch_without_room_for_one_more_lock(cramped: Analysis) -> None:
    cramped.spec(output("x", "echo 1 > {output}"))
    cramped.run()
    scratch = cramped.box.scratch
    inodes = os.statvfs(scratch)
    there = inodes.f_files - inodes.f_ffree
    remount = ["mount", "-o", f"remount,nr_inodes={there}", str(scratch)]
    subprocess.run(remount, check=True, timeout=30)
    cramped.spec(*(output(name, "echo 2 > {output}") for name in ("x", "y")))
    told = cramped.run(check=1)
    assert told.stderr == ""
    assert re.search(
        r"baseline/y: FAILED, The lock file \S+ cannot be opened \(No space left on device\): make "
        r"room in its directory or make it writable, or set LIGHTCONE_SCRATCH to one that is\.\n",
        told.stdout,
    )
    assert cramped.text("x") == "2\n"
    assert cramped.states() == {"x": "ok", "y": "missing"}
    subprocess.run([*remount[:2], "remount,nr_inodes=10000", str(scratch)], check=True, timeout=30)
    cramped.made()
    assert cramped.summary()["made"] == 1
    assert cramped.made() == ["y"]


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["plain", "json"])
def test_output_of_a_run_that_fills_its_disk(sandbox: Sandbox, options: tuple[str, ...]) -> None:
    analysis = Analysis(sandbox)
    talks = "while :; do echo something; sleep 0.01; done"
    analysis.spec(output("x", f'if [ -n "$GOOD" ]; then echo 1 > {{output}}; exit; fi; {talks}'))
    analysis.run(env={"GOOD": "1"})
    place = sandbox.base / "printed"
    place.mkdir()
    with mounted(place):
        with (place / "out").open("wb") as file:
            fill(place, 1)
            program = analysis.begin("-f", *options, stdout=file)
            assert program.wait(timeout=60) == 1
        assert (place / "out").read_text().startswith("{" if options else "baseline/x: started\n")
    assert program.stderr is not None
    assert program.stderr.read().decode() == (
        "lc: What lc prints could not be written (No space left on device): make room there, or "
        "send it elsewhere.\n"
    )
    wait_until(lambda: not analysis.recipes(), "the recipe has ended")
    wait_until(lambda: analysis.states() == {"x": "ok"}, "the previous result is back")
    assert analysis.leftovers() == []
    analysis.close()
