"""Runs that go on without their terminal, and are found again."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading

import psutil
import pytest

from lightcone.engine.command_lines import driver_command
from lightcone.project.context import current_context
from lightcone.run.detached import DetachedRun, list_runs
from lightcone.system.locks import Lock
from tests.helpers import Sandbox, wait_until
from tests.run.analyses import Analysis, interrupt, output

_WAITS = "touch $PLACE/began; until [ -e $PLACE/gate ]; do sleep 0.05; done; echo it > {output}"


def _begin(alone: Analysis, *arguments: str) -> None:
    alone.spec(output("a", _WAITS))
    told = alone.run("--detach", *arguments).stdout
    assert "runs on as" in told
    wait_until((alone.place / "began").exists, "its recipe runs")


def test_a_detached_run_is_waited_for_and_shown(alone: Analysis) -> None:
    _begin(alone)
    assert "used by lc run (1), pid" in alone.box.lc("session", "status").stdout
    assert alone.box.lc("wait", "--timeout", "0.1s", check=1).stderr.startswith("lc: 1 goes on")
    shown = alone.begin("--attach")
    assert shown.stdout is not None
    assert shown.stdout.readline() == b"a: started\n" or shown.poll() is None
    waiting = alone.box.popen("wait")
    alone.open("gate")
    out, _ = shown.communicate(timeout=60)
    assert b"lc: 1 made" in out
    assert (shown.returncode, waiting.wait(60)) == (0, 0)
    assert alone.text("a") == "it\n"
    assert alone.box.lc("wait", "1").returncode == 0  # also afterwards
    assert "a: made" in alone.run("--attach", "1").stdout


def test_a_failure_is_its_exit_code(alone: Analysis) -> None:
    alone.spec(output("a", "exit 3"))
    alone.run("--detach", "--name", "night")
    assert alone.box.lc("wait", "night", check=1).returncode == 1
    assert "FAILED, exit code 3" in alone.run("--attach", "night", check=1).stdout


def test_cancel_is_what_ctrl_c_is(alone: Analysis) -> None:
    _begin(alone, "--name", "night")
    assert alone.box.lc("cancel", "night").stdout == "night: ended\n"
    assert alone.box.lc("wait", "night", check=130).returncode == 130
    assert alone.states() == {"a": "interrupted"}
    assert not alone.recipes()
    assert alone.box.lc("cancel", "night").stdout == "night: had ended already\n"


def test_looking_on_can_be_left(alone: Analysis) -> None:
    _begin(alone)
    shown = alone.begin("--attach")
    assert shown.stdout is not None
    wait_until(lambda: shown.stdout is not None and shown.stdout.readline(), "it shows something")
    interrupt(shown)
    _, errors = shown.communicate(timeout=60)
    assert shown.returncode == 130
    assert b"1 runs on; 'lc cancel 1' ends it" in errors
    alone.open("gate")
    assert alone.box.lc("wait").returncode == 0


def test_the_end_of_the_session_is_its_end(alone: Analysis) -> None:
    _begin(alone)
    alone.box.lc("session", "stop")
    assert alone.box.processes() == []
    assert alone.box.lc("wait", "1", check=3).returncode == 3


def test_a_killed_driver_is_told(alone: Analysis) -> None:
    _begin(alone)
    for process in alone.box.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # one that had just been asked something
            line = process.cmdline()
            if "--detach" not in line and "run" in line:
                process.kill()
    told = alone.box.lc("wait", "1", check=None)
    assert told.returncode in (3, 137)
    wait_until(lambda: not alone.recipes(), "its recipe is gone")


def test_several_have_names(alone: Analysis) -> None:
    alone.spec(output("a", _WAITS), output("b", _WAITS.replace("began", "begun")))
    alone.run("--detach", "a")
    alone.run("--detach", "b", "--name", "two")
    for name in ("began", "begun"):
        wait_until((alone.place / name).exists, "both run")
    assert "name one of 1, two" in alone.box.lc("wait", check=2).stderr
    assert (
        "goes on: choose another name"
        in alone.run("--detach", "--name", "two", "b", "-f", check=2).stderr
    )
    assert "no detached run called 'x'" in alone.box.lc("cancel", "x", check=2).stderr
    assert "cannot be the name" in alone.run("--detach", "-f", "--name", "a/b", check=2).stderr
    alone.open("gate")
    assert alone.box.lc("wait", "1").returncode == alone.box.lc("wait", "two").returncode == 0


def test_the_environment_is_the_callers(alone: Analysis) -> None:
    alone.spec(output("a", 'echo "$COLOUR ${{LIGHTCONE_RUN_NAME-none}}" > {output}'))
    alone.run("--detach", env={"COLOUR": "blue"})
    assert alone.box.lc("wait").returncode == 0
    assert alone.text("a") == "blue none\n"


def test_nothing_to_do_detaches_nothing(alone: Analysis) -> None:
    alone.spec(output("a", "echo it > {output}"))
    alone.run()
    assert "runs on as" not in alone.run("--detach").stdout
    assert "There is no detached run here" in alone.box.lc("wait", check=2).stderr


_MUCH = """\
import sys
for number in range(17 * 1024):
    print(f"{number:<1023}")
print("the end")
"""


def test_one_who_looks_on_is_shown_all_of_a_log_that_is_begun_anew(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LIGHTCONE_SCRATCH", "LIGHTCONE_RUNTIME_DIR"):
        monkeypatch.setenv(name, sandbox.env[name])
    run = DetachedRun(current_context(sandbox.project), "1")
    run.directory.mkdir(parents=True)
    (run.directory / "log").write_bytes(b"-1\n")
    shown = io.BytesIO()
    with contextlib.closing(Lock(run.directory / "lock")) as lock:
        assert lock.acquire()
        looking = threading.Thread(target=run.follow, args=(shown,))
        looking.start()
        wait_until(shown.getvalue, "it is shown the beginning")
        program = [sys.executable, "-c", _MUCH]
        guarded = driver_command(run.context.state, run.directory, 1.0, program)
        subprocess.run(guarded, stdout=subprocess.DEVNULL, timeout=60, check=True)
    looking.join(60)
    assert (run.directory / "log.old").exists()
    lines = shown.getvalue().splitlines()
    assert lines.pop() == b"the end"
    assert [int(line) for line in lines] == list(range(-1, 17 * 1024))


_SLOW = "import os, time; time.sleep(4.0 if 'LIGHTCONE_RUN_NAME' in os.environ else 0.0)"


def test_the_session_waits_for_a_run_that_has_yet_to_begin(alone: Analysis) -> None:
    alone.spec(output("a", "echo it > {output}"))
    (alone.place / "sitecustomize.py").write_text(_SLOW)
    alone.box.lc("session", "start", "--lease", "agent")
    slow = {"PYTHONPATH": str(alone.place), "LIGHTCONE_LEASE": "agent"}
    alone.run("--detach", env=slow)
    alone.box.lc("session", "release", "agent")
    assert alone.box.lc("wait").returncode == 0
    assert alone.text("a") == "it\n"


def test_others_that_ask_are_no_run(sandbox: Sandbox) -> None:
    run = DetachedRun(current_context(sandbox.project), "1")
    run.directory.mkdir(parents=True)
    asking = Lock(run.directory / "lock")
    assert asking.acquire(shared=True)
    assert not run.is_running
    asking.release()
    out = io.BytesIO()
    run.follow(out)  # it has said nothing
    assert out.getvalue() == b""
    # One that is removed while they are looked at.
    (run.directory.parent / "2").symlink_to("gone")
    assert list_runs(run.context) == [run]
