"""The guard, run as the script that it is."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightcone.system import guard
from lightcone.system.guard import descendants
from tests.helpers import end, is_alive, wait_until

_GUARD = [sys.executable, "-I", "-S", guard.__file__]
_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="child subreapers are Linux's")
# Leaves a child that has shed its parent, session and environment; says its id.
_DETACH = """\
( setsid env -i sh -c 'trap "" HUP TERM; echo $$ > "$0.new"; mv "$0.new" "$0"
  while :; do sleep 0.1; done' "$1" & ) ; until [ -e "$1" ]; do sleep 0.02; done
"""
_WAIT = "while :; do sleep 0.1; done"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """The guards that a test starts; whatever is left below them is ended."""
    guards: list[subprocess.Popen[str]] = []
    yield guards
    for process in guards:
        end([*descendants(process.pid), process.pid])
        process.communicate()


def _run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A guarded program's run to its end."""
    return subprocess.run(
        [*_GUARD, *arguments], capture_output=True, text=True, timeout=60, check=False, env=env
    )


def _start(started: list[subprocess.Popen[str]], *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([*_GUARD, *arguments], stdout=subprocess.PIPE, text=True)
    started.append(process)
    return process


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


@pytest.mark.parametrize(
    ("script", "code", "how"),
    [
        ("exit 0", 0, "exit status 0"),
        ("exit 7", 7, "exit status 7"),
        ("kill -KILL $$", 137, "signal 9"),
        ("kill -TERM $$", 143, "signal 15"),
    ],
)
def test_leaves_with_the_programs_status(script: str, code: int, how: str) -> None:
    result = _run("--", "sh", "-c", script)
    assert result.returncode == code
    assert result.stdout == f"[guard] sh ended: {how}\n"


def test_program_that_is_not_there() -> None:
    result = _run("--", "no-such-program")
    assert result.returncode == 127
    assert "[guard] no-such-program: " in result.stdout


def test_output_and_errors_go_out_and_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("earlier\n")
    result = _run(f"--log={log}", "--", "sh", "-c", "echo out; echo err >&2")
    assert result.stdout == "out\nerr\n[guard] sh ended: exit status 0\n"
    assert log.read_text() == f"earlier\n{result.stdout}"


def test_log_is_private(tmp_path: Path) -> None:
    _run(f"--log={tmp_path / 'log'}", "--", "true")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_log_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    assert _run(f"--log={tmp_path / 'log'}", "--", "true").returncode != 0
    assert not (tmp_path / "elsewhere").exists()


def test_log_that_grows_too_long_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(f"--log={log}", "--", "head", "-c", "20000000", "/dev/zero")
    assert log.stat().st_size < 17_000_000
    assert (tmp_path / "log.old").stat().st_size > 16_000_000


def test_log_that_was_removed_before_it_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    much = f"head -c 16000000 /dev/zero; rm {log}; head -c 2000000 /dev/zero; echo last"
    _run(f"--log={log}", "--", "sh", "-c", much)
    assert log.read_text().endswith("last\n[guard] sh ended: exit status 0\n")


def test_input_is_empty_and_the_log_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(f"--log={log}", "--", "sh", "-c", "cat; head -c 1000000 /dev/zero | tr '\\0' x")
    assert log.read_text() == "x" * 1_000_000 + "[guard] sh ended: exit status 0\n"


def test_reader_that_stalls_does_not_hold_the_program_up(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    done = tmp_path / "done"
    script = f"head -c 1000000 /dev/zero; touch {done}"
    _start(started, f"--log={tmp_path / 'log'}", "--", "sh", "-c", script)
    wait_until(done.exists, "the program has written it all")


def test_environment_less_what_is_dropped_with_what_is_set() -> None:
    env = {"PATH": os.environ["PATH"], "DASK_A": "1", "XDASK_B": "2", "KEPT": "3"}
    options = ("--drop=DASK_", "--set=DASK_C=4", "--set=KEPT=a=b")
    result = _run(*options, "--", "env", env=env)
    lines = set(result.stdout.splitlines()) - {"[guard] env ended: exit status 0"}
    assert {"XDASK_B=2", "DASK_C=4", "KEPT=a=b"} <= lines
    assert not any(line.startswith("DASK_A") for line in lines)


def test_descriptors_and_signals_of_the_program_are_fresh() -> None:
    code = (
        "import os, signal; print(sorted(map(int, os.listdir('/dev/fd')))[:3],"
        " [signal.getsignal(s) == signal.SIG_DFL for s in (1, 15, 17, 10)],"
        " signal.pthread_sigmask(signal.SIG_BLOCK, []), os.getsid(0) == os.getpid())"
    )
    result = _run("--", sys.executable, "-c", code)
    assert result.stdout.startswith("[0, 1, 2] [True, True, True, True] set() True\n")


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_request_is_passed_on_as_term(
    started: list[subprocess.Popen[str]], signum: signal.Signals
) -> None:
    trap = 'trap "echo asked; exit 5" TERM; trap "echo wrong" HUP INT; '
    process = _start(started, "--", "sh", "-c", f"{trap} echo up; {_WAIT}")
    assert _line(process) == "up"
    process.send_signal(signum)
    out, _ = process.communicate(timeout=60)
    assert out == "asked\n[guard] sh ended: exit status 5\n"
    assert process.returncode == 5


def test_program_that_does_not_end_when_asked_is_killed(
    started: list[subprocess.Popen[str]],
) -> None:
    process = _start(started, "--grace=0.2", "--", "sh", "-c", f'trap "" TERM; echo up; {_WAIT}')
    assert _line(process) == "up"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 137
    assert 0.2 < time.monotonic() - begun < 30


@pytest.mark.parametrize(("seconds", "said"), [("60", "by itself"), ("0.2", "asked")])
def test_program_that_is_asked_only_when_it_does_not_end_by_itself(
    started: list[subprocess.Popen[str]], tmp_path: Path, seconds: str, said: str
) -> None:
    go = tmp_path / "go"
    script = f'trap "echo asked; exit" TERM; echo up; until [ -e {go} ]; do sleep 0.02; done'
    script += "; echo by itself"
    process = _start(started, f"--patience={seconds}", "--", "sh", "-c", script)
    assert _line(process) == "up"
    process.terminate()
    if said != "asked":
        go.touch()
    assert _line(process) == said
    process.wait(50)


def test_stopped_program_ends_too(started: list[subprocess.Popen[str]]) -> None:
    script = f"sh -c 'echo $$; {_WAIT}' & wait"
    process = _start(started, "--grace=60", "--", "sh", "-c", script)
    child = int(_line(process))
    os.kill(child, signal.SIGSTOP)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not is_alive(child)
    assert time.monotonic() - begun < 45


@_LINUX
@pytest.mark.parametrize("ending", ["exit 0", "kill -KILL $$"])
def test_detached_descendants_end_with_the_program(tmp_path: Path, ending: str) -> None:
    detached = tmp_path / "detached"
    _run("--grace=0.2", "--", "sh", "-c", _DETACH + ending, "sh", str(detached))
    assert not is_alive(int(detached.read_text()))


def test_descendants_are_asked_before_they_are_killed(tmp_path: Path) -> None:
    up, polite = tmp_path / "up", tmp_path / "polite"
    child = f"(trap 'echo asked > {polite}; exit' TERM; touch {up}; {_WAIT}) &"
    script = f"{child} until [ -e {up} ]; do sleep 0.02; done"
    result = _run("--grace=50", "--", "sh", "-c", script)
    assert result.returncode == 0
    assert polite.read_text() == "asked\n"


@_LINUX
def test_program_is_asked_to_end_when_the_guard_is_killed(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    script = f'trap "touch {tmp_path}/asked; exit" TERM; echo $$; {_WAIT}'
    process = _start(started, "--", "sh", "-c", script)
    pid = int(_line(process))
    process.kill()
    wait_until(lambda: not is_alive(pid), "the program has ended")
    assert (tmp_path / "asked").exists()


@_LINUX
def test_outer_guard_ends_what_the_inner_one_left(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    detached = tmp_path / "detached"
    inner = [*_GUARD, "--grace=0.2", "--", "sh", "-c", f"{_DETACH} echo $$; {_WAIT}", "sh"]
    process = _start(started, "--grace=0.2", "--", *inner, str(detached))
    program = int(_line(process))
    (inner_guard,) = (pid for pid in descendants(process.pid) if program in descendants(pid))
    os.kill(inner_guard, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 137
    assert not is_alive(program)
    assert not is_alive(int(detached.read_text()))


def test_members_lock_is_held_until_guard_and_program_are_gone(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    members = tmp_path / "members"
    options = [f"--members={members}", "--", "sh", "-c"]
    process = _start(
        started, *options, f'trap "" TERM; echo $$; exec {sys.executable} -c "{_STAY}"'
    )
    pid = int(_line(process))
    assert not _is_free(members)
    process.kill()
    process.wait()
    assert is_alive(pid)
    assert not _is_free(members)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _is_free(members), "the lock is free")


_STAY = "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"


def _is_free(path: Path) -> bool:
    with open(path) as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@pytest.mark.parametrize(
    ("script", "why"),
    [("exit 3", "never up"), ("kill -USR1 $PPID; exit 0", "a good end")],
    ids=["never up", "a good end"],
)
def test_restarts_only_what_was_up_and_ended_badly(tmp_path: Path, script: str, why: str) -> None:
    result = _run("--restart", "--", "sh", "-c", f"echo . >> {tmp_path}/runs; {script}")
    assert (tmp_path / "runs").read_text() == ".\n", why
    assert "starting it again" not in result.stdout


def test_does_not_restart_unless_told(tmp_path: Path) -> None:
    result = _run("--", "sh", "-c", f"echo . >> {tmp_path}/runs; kill -USR1 $PPID; exit 3")
    assert result.returncode == 3
    assert (tmp_path / "runs").read_text() == ".\n"


def test_restarts_more_slowly_each_time_and_gives_up_after_five(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    code = (
        "import os, sys, time\n"
        f"print(time.monotonic(), file=open('{tmp_path}/runs', 'a'))\n"
        "os.kill(os.getppid(), 10 if sys.platform == 'linux' else 30)\n"
        "sys.exit(9)"
    )
    process = _start(started, "--restart", "--", sys.executable, "-c", code)
    said = []
    while line := _line(process):
        said.append(line)
        if "starting it again" in line:
            process.send_signal(signal.SIGCHLD)  # that of a child which has been reaped may be late
    assert process.wait(timeout=60) == 9
    assert "five bad ends within a minute: giving up" in said[-1]
    times = [float(line) for line in (tmp_path / "runs").read_text().split()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 5
    for pause, least in zip(pauses, (0.1, 0.4, 1.6, 6.4), strict=True):
        assert pause >= least


def test_request_between_two_runs_ends_it(started: list[subprocess.Popen[str]]) -> None:
    script = "kill -USR1 $PPID; exit 9"
    process = _start(started, "--restart", "--", "sh", "-c", script)
    while "in 6.4 s" not in _line(process):
        assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert time.monotonic() - begun < 5
    assert process.returncode == 9


def test_does_not_restart_once_asked(started: list[subprocess.Popen[str]]) -> None:
    script = f'kill -USR1 $PPID; trap "exit 9" TERM; echo up; {_WAIT}'
    process = _start(started, "--restart", "--", "sh", "-c", script)
    assert _line(process) == "up"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 9
    assert "again" not in out


def test_restart_ends_what_the_last_one_left(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A second worker beside the first one's commands would be two writers."""
    first = tmp_path / "first"
    script = (
        f"[ -e {first} ] && exit 0; sh -c '{_WAIT}' & echo $! > {first}; kill -USR1 $PPID; exit 1"
    )
    result = _run("--restart", "--", "sh", "-c", script)
    assert result.returncode == 0
    assert not is_alive(int(first.read_text()))


def test_descendants_are_found_and_zombies_left_out() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 4321 & sleep 4321 & wait"])
    zombie = subprocess.Popen(["true"])
    try:
        wait_until(lambda: len(descendants(process.pid)) == 2, "both children run")
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        ours = descendants(os.getpid())
        assert process.pid in ours
        assert set(descendants(process.pid)) < set(ours)
        assert zombie.pid not in ours
    finally:
        end([*descendants(process.pid), process.pid])
        process.wait()
        zombie.wait()
