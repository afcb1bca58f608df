"""Logs: what any recipe printed, with its command, its environment and its end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lightcone.spec.output import Output
from lightcone.system.processes import Usage
from lightcone.worker.log import Log, environment_lines, heading
from lightcone.worker.tasks import Cause, CompletedCommand
from tests.helpers import wait_until
from tests.run.analyses import Analysis, interrupt, output, succeed

_SAYS = 'echo "$SAYS"; echo 1 > {output}; exit ${{CODE-0}}'
_WAITS = 'touch "$PLACE/begun"; until [ -e "$PLACE/gate" ]; do sleep 0.05; done; '


def _log(analysis: Analysis, *arguments: str) -> str:
    return analysis.box.lc("log", "x", *arguments).stdout


def test_log_of_the_last_attempt_and_of_the_good_one(analysis: Analysis) -> None:
    analysis.spec(output("x", _SAYS))
    analysis.run(env={"SAYS": "first"})
    first = _log(analysis)
    assert "\nfirst\n# exit code 0 after " in first
    assert _log(analysis, "--good") == first
    for says in ("second", "third"):
        analysis.run("-f", check=1, env={"SAYS": says, "CODE": "3"})
        assert f"\n{says}\n# exit code 3 after " in _log(analysis)
        assert "\n# failed: exit code 3\n# kept: " in _log(analysis)
        assert _log(analysis, "--good") == first
        assert analysis.states() == {"x": "ok"}
    analysis.run("-f", env={"SAYS": "fourth"})
    assert "\nfourth\n# exit code 0 after " in _log(analysis)
    assert _log(analysis, "--good") == _log(analysis)


def test_log_of_an_attempt_that_goes_on(analysis: Analysis) -> None:
    analysis.spec(output("x", 'echo "$SAYS"; ' + _WAITS + "echo 1 > {output}"))
    analysis.open("gate")
    analysis.run(env={"SAYS": "first"})
    first = _log(analysis)
    (analysis.place / "gate").unlink()
    (analysis.place / "begun").unlink()
    program = analysis.begin("-f", env={"SAYS": "second"})
    wait_until(lambda: _log(analysis).endswith("\nsecond\n"), "it has said so")
    assert _log(analysis, "--good") == first
    interrupt(program)
    program.communicate(timeout=60)
    assert _log(analysis).endswith("\n# interrupted: it was interrupted\n")
    assert _log(analysis, "--good") == first


def _follow(
    analysis: Analysis, option: str
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """A run whose recipe has said "one" and waits, and a follower that has shown it."""
    analysis.spec(output("x", "echo one; " + _WAITS + "echo two; echo 1 > {output}"))
    program = analysis.begin()
    analysis.began("begun")
    reader = analysis.box.popen("log", "x", option)
    assert reader.stdout is not None
    assert any(line == b"one\n" for line in iter(reader.stdout.readline, b""))
    return program, reader


def test_log_that_is_followed_until_the_recipe_has_ended(analysis: Analysis) -> None:
    program, reader = _follow(analysis, "--follow")
    analysis.open("gate")
    rest, errors = reader.communicate(timeout=60)
    assert (reader.returncode, errors) == (0, b"")
    assert rest.startswith(b"two\n# exit code 0 after ")
    succeed(program)
    assert _log(analysis, "-f") == _log(analysis)


def test_follower_is_interrupted_without_a_word_too_many(analysis: Analysis) -> None:
    program, reader = _follow(analysis, "-f")
    reader.send_signal(signal.SIGINT)
    _, errors = reader.communicate(timeout=60)
    assert (reader.returncode, errors) == (130, b"\nlc: interrupted\n")
    analysis.open("gate")
    succeed(program)


def test_reader_of_a_log_may_leave(analysis: Analysis) -> None:
    analysis.spec(output("x", "seq 200000; echo 1 > {output}"))
    analysis.run("-q")
    line = f"{sys.executable} -m lightcone log x | head -n 1"
    result = subprocess.run(
        ["bash", "-c", line], cwd=analysis.root, env=analysis.box.env, capture_output=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert (result.stdout[:13], result.stderr) == (b"# baseline/x,", b"")


def test_log_of_what_was_not_made_here(analysis: Analysis) -> None:
    analysis.spec(output("x", "exit 1"))
    assert "x has no log, as none was made" in analysis.box.lc("log", "x", check=2).stderr
    analysis.run(check=1)
    refused = analysis.box.lc("log", "x", "--good", check=2).stderr
    assert refused == "lc: x has no log of a good result, as none was made here: use 'lc run'.\n"
    assert "leave out" in analysis.box.lc("log", "x", "--good", "-f", check=2).stderr


def test_why_a_recipe_has_failed_is_in_its_log(analysis: Analysis) -> None:
    analysis.spec(output("x", "echo nothing"))
    analysis.run(check=1)
    assert _log(analysis).endswith(
        "\n# failed: it exited with 0 and wrote no results/baseline/x.txt\n"
    )
    analysis.spec(output("x", "sleep 60", resources={"time_limit": "1s"}))
    analysis.run(check=1)
    assert _log(analysis).endswith("\n# failed: it was ended at its time limit of 1.0 s\n")


def test_heading_has_the_environment_that_differs_and_no_value_of_the_callers(
    analysis: Analysis,
) -> None:
    analysis.spec(output("x", "env > {output}", resources={"cpus": 1}))
    secret = {"TOKEN": "very secret", "OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": "1"}
    program = analysis.begin(env=secret)
    succeed(program)
    (line,) = (line for line in _log(analysis).splitlines() if line.startswith("# environment"))
    told = dict(word.split("=", 1) for word in line.removeprefix("# environment set: ").split())
    task = told.pop("LIGHTCONE_TASK")
    assert task.startswith("lightcone-")
    assert told == {
        **dict.fromkeys(
            (
                "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS",
            ),
            "1",
        ),
        "PYTHONUNBUFFERED": "1",
        "LIGHTCONE_RECIPE": "baseline/x",
    }  # fmt: skip
    seen = dict(line.split("=", 1) for line in analysis.text("x").splitlines() if "=" in line)
    assert seen.items() >= {**told, **secret, "LIGHTCONE_TASK": task}.items()
    assert "secret" not in _log(analysis)
    assert f"for lc run, pid {program.pid}\n" in _log(analysis)


def test_environment_differences() -> None:
    before = {"A": "1", "GONE": "secret", "B": "secret"}
    after = {"A": "1", "B": "ours", "C": "two words"}
    assert environment_lines(before, after) == [
        "environment set: B=ours C='two words'",
        "environment removed: GONE",
    ]
    assert environment_lines(before, before) == []


_OUTPUT = Output("u", "x", Path("/p"), "/p/x", "/p/s", False, "true\n", "true")
_ENDED = CompletedCommand(0, Cause.ITSELF, 1.0, Usage())


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o002])
def test_log_is_never_readable_for_more_than_the_callers_umask_allows(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.txt"
    modes = []

    def fchmod(file: int, mode: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(file).st_mode))
        real(file, mode)

    real = os.fchmod
    monkeypatch.setattr(os, "fchmod", fchmod)
    log = Log(path, umask, heading(_OUTPUT, 1.5, "lc run, pid 1", ["more"]))
    log.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert [mode & umask for mode in modes] == [0]


def test_new_log_leaves_the_one_before_to_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    first = Log(path, 0o022, "first\n")
    second = Log(path, 0o022, "second\n")
    first.add("late")
    first.close()
    first.add("too late")
    second.end(_ENDED, {})
    second.close()
    assert path.read_text().startswith("second\n# exit code 0 after 1.0 s; 20")
    assert "late" not in path.read_text()


def test_what_there_was_no_room_for_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no device that is always full")
    log = Log(tmp_path / "log.txt", 0o022, "$ true\n")
    kept, log._file = log._file, os.open("/dev/full", os.O_WRONLY)
    log.write(b"12345")
    os.close(log._file)
    log._file = kept
    log.write(b"6")
    log.end(_ENDED, {})
    log.close()
    assert (
        "$ true\n6\n# 5 bytes are missing here: the disk was full\n# exit code 0"
        in (tmp_path / "log.txt").read_text()
    )


def test_good_log_survives_the_end_of_everything(alone: Analysis) -> None:
    alone.spec(output("x", 'echo "$SAYS"; ' + _WAITS + "echo 1 > {output}"))
    alone.open("gate")
    alone.run(env={"SAYS": "first"})
    first = _log(alone)
    for name in ("gate", "begun"):
        (alone.place / name).unlink()
    program = alone.begin("-f", env={"SAYS": "second"})
    wait_until(lambda: _log(alone).endswith("\nsecond\n"), "it has said so")
    alone.kill_all(program)
    assert _log(alone).endswith("\nsecond\n")
    assert _log(alone, "--good") == first
    assert alone.summary()["session"] == "none"
    assert _log(alone).endswith("\nsecond\n")
    assert _log(alone, "--good") == first
