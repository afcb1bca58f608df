"""``lc exec``: one command on the cluster, as if it had been run here."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import Sandbox, is_alive, is_full, unread_pipe, wait_until

# Prints its process id, then lives until it is ended; more is done on TERM as a test wants.
_ENDLESS = "echo $$; while :; do sleep 0.1; done"


def _begin(sandbox: Sandbox, script: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command whose first line is its process id."""
    caller = sandbox.popen("exec", "--", "sh", "-c", script)
    assert caller.stdout is not None
    line = caller.stdout.readline()
    assert line, caller.communicate(timeout=30)
    return caller, int(line)


def _exec(sandbox: Sandbox, script: str, check: int = 0) -> subprocess.CompletedProcess[str]:
    return sandbox.lc("exec", "--", "sh", "-c", script, check=check)


def test_environment_is_the_callers(shared: Sandbox) -> None:
    for value in ("1", "2"):
        result = shared.lc("exec", "--", "sh", "-c", "echo $FOO", env={"FOO": value})
        assert result.stdout == f"{value}\n"
    assert _exec(shared, "echo ${FOO-unset}").stdout == "unset\n"


def test_directory_is_the_callers(shared: Sandbox) -> None:
    below = shared.project / "with space"
    below.mkdir()
    assert shared.lc("exec", "--", "pwd", cwd=below).stdout == f"{below}\n"


def test_umask_is_the_callers(shared: Sandbox) -> None:
    for mask in (0o027, 0o002):
        caller = shared.popen("exec", "--", "sh", "-c", "umask", umask=mask)
        assert caller.communicate(timeout=60)[0].strip() == f"{mask:04o}".encode()


def test_threads_are_capped_to_its_share_unless_the_caller_says(shared: Sandbox) -> None:
    shown = ("exec", "--cpus", "1", "--", "sh", "-c", "echo $OMP_NUM_THREADS")
    assert shared.lc(*shown).stdout == "1\n"
    assert shared.lc(*shown, env={"OMP_NUM_THREADS": "7"}).stdout == "7\n"


def test_output_and_errors_come_apart_and_whole(shared: Sandbox) -> None:
    data = shared.base / "random"
    data.write_bytes(os.urandom(100_000))
    script = f"cat {data}; head -c 50000 {data} >&2"
    caller = shared.popen("exec", "--", "sh", "-c", script)
    out, errors = caller.communicate(timeout=60)
    assert caller.returncode == 0
    assert hashlib.sha256(out).digest() == hashlib.sha256(data.read_bytes()).digest()
    assert errors == data.read_bytes()[:50000]


def test_output_is_live(shared: Sandbox) -> None:
    gate = shared.base / "gate"
    caller, _ = _begin(shared, f"echo $$; until [ -e {gate} ]; do sleep 0.05; done; echo two")
    gate.touch()
    assert caller.communicate(timeout=60)[0] == b"two\n"


def test_input_is_empty(shared: Sandbox) -> None:
    assert _exec(shared, "cat; echo $?").stdout == "0\n"


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_exit_code_is_the_commands(shared: Sandbox, code: int) -> None:
    result = _exec(shared, f"exit {code}", check=code)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_signal_is_told_as_shells_do(shared: Sandbox, signum: signal.Signals) -> None:
    assert _exec(shared, f"kill -{signum.value} $$", check=128 + signum).stdout == ""


def test_unknown_command(shared: Sandbox) -> None:
    result = shared.lc("exec", "--", "no-such-command", check=127)
    assert result.stderr == "lc: No such file or directory: no-such-command\n"


def test_command_that_cannot_be_run(shared: Sandbox) -> None:
    result = shared.lc("exec", "--", str(shared.project), check=126)
    assert result.stderr == f"lc: Permission denied: {shared.project}\n"


def test_command_is_looked_up_in_the_callers_path(shared: Sandbox) -> None:
    tools = shared.base / "tools"
    tools.mkdir()
    (tools / "my-own-tool").write_text("#!/bin/sh\necho mine\n")
    (tools / "my-own-tool").chmod(0o755)
    path = f"{tools}:{shared.env['PATH']}"
    assert shared.lc("exec", "--", "my-own-tool", env={"PATH": path}).stdout == "mine\n"


def test_options_of_the_command_are_its_own(shared: Sandbox) -> None:
    assert shared.lc("exec", "--", "echo", "--cpus", "9", "-h").stdout == "--cpus 9 -h\n"
    assert shared.lc("exec", "--cpus", "0.5", "--memory", "1Mi", "echo", "x").stdout == "x\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--cpus", "9999"), "asks for 9999 cpus"),
        (("--memory", "1000000Gi"), "of memory"),
        (("--gpus", "999"), "999 gpus"),
    ],
    ids=["cpus", "memory", "gpus"],
)
def test_more_than_there_is_is_refused(
    shared: Sandbox, options: tuple[str, str], words: str
) -> None:
    result = shared.lc("exec", *options, "--", "true", check=125)
    assert result.stderr.startswith("lc: The command cannot run: it asks for ")
    assert words in result.stderr
    assert "the largest worker has" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--",),
        ("--cpus", "0", "--", "true"),
        ("--cpus", "-1", "--", "true"),
        ("--cpus", "many", "--", "true"),
        ("--cpus", "nan", "--", "true"),
        ("--cpus", "inf", "--", "true"),
        ("--memory", "much", "--", "true"),
        ("--gpus", "0.5", "--", "true"),
        ("--unknown", "--", "true"),
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_mistakes_in_the_call_are_ours(shared: Sandbox, arguments: tuple[str, ...]) -> None:
    result = shared.lc("exec", *arguments, check=125)
    assert result.stdout == ""
    assert result.stderr


def test_commands_run_beside_each_other_as_far_as_the_cpus_go(shared: Sandbox) -> None:
    """Four quarters of a processor run at once: each waits for the others."""
    script = (
        f"echo $$; : > {shared.base}/$$.here; until [ -e {shared.base}/go ]; do sleep 0.05; done"
    )
    callers = [shared.popen("exec", "--cpus", "0.25", "--", "sh", "-c", script) for _ in range(4)]
    wait_until(lambda: len(list(shared.base.glob("*.here"))) == 4, "all four run")
    (shared.base / "go").touch()
    for caller in callers:
        caller.communicate(timeout=60)
        assert caller.returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_asks_the_command_to_end_and_waits_for_it(
    shared: Sandbox, signum: signal.Signals
) -> None:
    trap = 'trap "echo ending; sleep 0.5; echo ended; exit 0" TERM; '
    caller, pid = _begin(shared, trap + _ENDLESS)
    caller.send_signal(signum)
    out, _ = caller.communicate(timeout=60)
    assert not is_alive(pid)
    assert out == b"ending\nended\n"
    assert caller.returncode == 130
    assert shared.status()["state"] == "alive"


def test_second_interrupt_ends_the_command_at_once(sandbox: Sandbox) -> None:
    (sandbox.project / "lightcone.toml").write_text("[run]\ngrace = 60\n")
    sandbox.start()
    caller, pid = _begin(sandbox, 'trap "echo heard" TERM; ' + _ENDLESS)
    begun = time.monotonic()
    caller.send_signal(signal.SIGINT)
    assert caller.stdout is not None
    assert caller.stdout.readline() == b"heard\n"
    caller.send_signal(signal.SIGINT)
    caller.communicate(timeout=60)
    wait_until(lambda: not is_alive(pid), "the command has ended")
    assert time.monotonic() - begun < 30
    assert caller.returncode == 130
    assert sandbox.status()["state"] == "alive"


def test_command_that_ignores_the_interrupt_is_ended_after_its_grace(sandbox: Sandbox) -> None:
    (sandbox.project / "lightcone.toml").write_text("[run]\ngrace = 1\n")
    sandbox.start()
    caller, pid = _begin(sandbox, 'trap "" TERM; ' + _ENDLESS)
    caller.send_signal(signal.SIGINT)
    caller.communicate(timeout=60)
    assert caller.returncode == 130
    assert not is_alive(pid)


def test_interrupt_of_a_command_that_waits_for_its_turn(shared: Sandbox) -> None:
    cpus = str(shared.status()["workers"][0]["cpus"])
    gate = shared.base / "turn"
    holder = shared.popen(
        "exec", "--cpus", cpus, "--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done"
    )
    wait_until(lambda: len(shared.status()["runs"]) == 1, "the first one has begun")
    never = shared.base / "never"
    waiting = shared.popen("exec", "--cpus", cpus, "--", "touch", str(never))
    wait_until(lambda: len(shared.status()["runs"]) == 2, "the second one waits")
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    gate.touch()
    assert holder.wait(timeout=60) == 0
    assert _exec(shared, "true").returncode == 0
    assert not never.exists()


@pytest.mark.parametrize("ignoring", [False, True], ids=["plain", "ignoring TERM"])
def test_killed_caller_takes_the_command_with_it(sandbox: Sandbox, ignoring: bool) -> None:
    (sandbox.project / "lightcone.toml").write_text("[run]\ngrace = 1\n")
    sandbox.start()
    caller, pid = _begin(sandbox, ('trap "" TERM; ' if ignoring else "") + _ENDLESS)
    children = psutil.Process(pid).children()
    caller.kill()
    caller.wait()
    begun = time.monotonic()
    wait_until(lambda: not any(map(is_alive, [pid, *(c.pid for c in children)])), "it has ended")
    assert time.monotonic() - begun < 30
    sandbox.lc("session", "wait", "--for", "idle", "--timeout", "30")
    assert sandbox.status()["state"] == "alive"


def test_process_left_in_the_background_ends_with_the_command(shared: Sandbox) -> None:
    result = _exec(shared, "sleep 4321 & echo $!")
    assert not is_alive(int(result.stdout))


def test_reader_that_leaves_is_no_trouble_of_the_session(shared: Sandbox) -> None:
    caller = shared.popen("exec", "--", "sh", "-c", "echo $$; while :; do echo; sleep 0.01; done")
    assert caller.stdout is not None and caller.stderr is not None
    pid = int(caller.stdout.readline())
    caller.stdout.close()
    caller.stdout = None
    errors = caller.stderr.read()
    caller.wait(timeout=60)
    assert b"session" not in errors
    assert b"Traceback" not in errors
    wait_until(lambda: not is_alive(pid), "the command has ended")


def test_session_that_ends_during_a_command_is_told(sandbox: Sandbox) -> None:
    sandbox.start()
    caller, _ = _begin(sandbox, 'trap "exit 0" TERM; ' + _ENDLESS)
    sandbox.lc("session", "stop")
    out, errors = caller.communicate(timeout=30)
    assert caller.returncode == 125, (out, errors)
    # Before it may stand what the command's own shell says of its end.
    assert errors.splitlines()[-1].startswith(b"lc: ")
    assert b"run it again" in errors


def test_worker_killed_during_a_command_is_told(sandbox: Sandbox) -> None:
    sandbox.start()
    caller, pid = _begin(sandbox, _ENDLESS)
    os.kill(sandbox.programs()["worker"], signal.SIGKILL)
    _, errors = caller.communicate(timeout=60)
    assert caller.returncode == 125
    assert errors.startswith(b"lc: The cluster lost the command")
    wait_until(lambda: not is_alive(pid), "the guard has ended it")


def test_outside_a_project(sandbox: Sandbox) -> None:
    result = sandbox.lc("exec", "--", "true", check=125, cwd=sandbox.base)
    assert result.stderr.startswith(f"lc: There is no astra.yaml in {sandbox.base} or above it")


def test_project_with_a_name_that_is_hard_to_quote(sandbox: Sandbox) -> None:
    root = sandbox.new_project("a 'b\" $c #{d} é;")
    result = sandbox.lc("exec", "--", "pwd", cwd=root)
    assert Path(result.stdout.rstrip("\n")) == root


def test_more_output_than_is_sent_ahead(shared: Sandbox) -> None:
    with shared.popen("exec", "--", "head", "-c", "20000000", "/dev/zero") as program:
        assert program.stdout is not None
        assert len(program.stdout.read()) == 20_000_000


def test_output_that_has_passed_through_is_not_kept(shared: Sandbox) -> None:
    scheduler = psutil.Process(shared.programs()["scheduler"])
    before = scheduler.memory_info().rss
    prints = ("exec", "--", "head", "-c", "300M", "/dev/zero")
    with shared.popen(*prints, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as call:
        assert call.wait(100) == 0
    assert scheduler.memory_info().rss - before < 100 << 20


def test_a_command_waits_for_its_reader(shared: Sandbox) -> None:
    # It would print 1 GB; what it has printed when nobody reads is what fits in between.
    size = shared.base / "printed"
    counting = f"""
import os
for n in range(1000):
    os.write(1, b"x" * 1000000)
    open({str(size)!r}, "w").write(str(n))
"""
    program = shared.popen("exec", "--", "python3", "-c", counting)
    seen: list[str] = []

    def stands_still() -> bool:
        seen.append(size.read_text() if size.exists() else "")
        return len(seen) > 50 and len(set(seen[-50:])) == 1 and bool(seen[-1])

    wait_until(stands_still, "the command waits")
    assert int(seen[-1]) < 100
    program.kill()
    wait_until(lambda: shared.status()["idle"], "nothing of it is left")


_FEW_FILES = """\
import resource
from lightcone.cli.main import main
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
main()
"""


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="there is no prlimit")
def test_session_may_open_many_files_and_its_commands_as_many_as_its_caller(
    sandbox: Sandbox,
) -> None:
    sandbox.python("-c", _FEW_FILES, "session", "start")
    sandbox.lc("exec", "--", "sh", "-c", 'until [ "$(ulimit -Sn)" = 200 ]; do sleep 0.02; done')
    programs = sandbox.programs()
    for part in ("scheduler", "worker"):
        soft, hard = resource.prlimit(programs[part], resource.RLIMIT_NOFILE)
        assert soft == hard > 200


# Says that it was asked to end also while it waits for its reader, as a shell's trap would not.
_DEAF = """\
import os, pathlib, signal, sys
asked, pid = map(pathlib.Path, sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: asked.touch())
pid.write_text(str(os.getpid()))
while True:
    print("something")
"""


def test_interrupts_are_heard_while_nobody_reads_what_is_printed(sandbox: Sandbox) -> None:
    (sandbox.project / "lightcone.toml").write_text("[run]\ngrace = 60\n")
    sandbox.start()
    asked, its_pid = sandbox.base / "asked", sandbox.base / "pid"
    script = (sys.executable, "-c", _DEAF, str(asked), str(its_pid))
    with unread_pipe() as (_, writer):
        caller = sandbox.popen("exec", "--", *script, stdout=writer)
        wait_until(lambda: is_full(writer), "the call waits for its reader")
        pid = int(its_pid.read_text())
        begun = time.monotonic()
        caller.send_signal(signal.SIGTERM)
        wait_until(asked.exists, "the command has been asked to end")
        assert caller.poll() is None
        caller.send_signal(signal.SIGTERM)
        assert caller.wait(timeout=30) == 130
        wait_until(lambda: not is_alive(pid), "the command has ended")
        assert time.monotonic() - begun < 30
    wait_until(lambda: sandbox.status()["idle"], "nothing of it is left")
