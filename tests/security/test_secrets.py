"""The secrets in a caller's environment, and the session's key: where they are not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers import Sandbox
from tests.run.analyses import Analysis, output

_OF_THE_FIRST = "canary-of-the-first-caller-19c2"
_OF_A_RUN = "canary-of-a-run-8e40"
_OF_A_COMMAND = "canary-of-a-command-5d73"
_CANARIES = (_OF_THE_FIRST, _OF_A_RUN, _OF_A_COMMAND)


@pytest.fixture
def alone(sandbox: Sandbox) -> Iterator[Analysis]:
    """An analysis without a session so far."""
    project = Analysis(sandbox)
    yield project
    project.close()


def _files_with(place: Path, words: tuple[str, ...]) -> list[str]:
    found = []
    for path in place.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # a temporary one has its name by now
                content = path.read_bytes()
                found += [f"{path}: {word}" for word in words if word.encode() in content]
    return found


def _command_lines(box: Sandbox) -> Iterator[str]:
    for process in box.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            yield " ".join(process.cmdline())


def _lines_of_key(state: Path) -> tuple[str, ...]:
    lines = (state / "tls" / "session.pem").read_text().splitlines()
    return tuple(line for line in lines if not line.startswith("-----"))


def test_environments_are_in_no_file_and_on_no_command_line(alone: Analysis) -> None:
    """Not even in one that the user alone could read, while recipes run and afterwards."""
    box = alone.box
    waits = "touch $PLACE/$N; until [ -e $PLACE/go ]; do sleep 0.05; done"
    little = {"cpus": 0.1}
    alone.spec(
        output("good", f"N=good; {waits}; test -n $CANARY; echo > {{output}}", resources=little),
        output("bad", f"N=bad; {waits}; test -z $CANARY", resources=little),
    )
    box.lc("session", "start", env={"CANARY": _OF_THE_FIRST})
    run = alone.begin(env={"CANARY": _OF_A_RUN})
    executed = ["exec", "--cpus", "0.1", "--", "sh", "-c", f"N=exec; {waits}"]
    command = box.popen(*executed, env={"CANARY": _OF_A_COMMAND})
    for name in ("good", "bad", "exec"):
        alone.began(name)
    secrets = (*_CANARIES, *_lines_of_key(box.state()))
    assert len(secrets) > 6
    lines = "\n".join(_command_lines(box))
    assert "dask_scheduler" in lines
    assert not [word for word in secrets if word in lines]
    pem = box.state() / "tls" / "session.pem"
    assert {each.partition(": ")[0] for each in _files_with(box.base, secrets)} == {str(pem)}
    alone.open("go")
    assert (run.wait(timeout=60), command.wait(timeout=60)) == (1, 0)
    assert alone.path("good").exists()
    box.lc("session", "stop")
    assert _files_with(box.base, secrets) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_environment_of_a_process_has_no_other_callers(alone: Analysis) -> None:
    """The first caller's is that of the session's programs; a later one's only its command's."""
    box = alone.box
    box.lc("session", "start", env={"CANARY": _OF_THE_FIRST})
    programs = set(box.programs().values())
    command = box.popen(
        "exec",
        *("--", "sh", "-c", "echo begun; exec sleep 1000"),
        env={"CANARY": _OF_A_COMMAND},
        stderr=subprocess.STDOUT,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == b"begun\n"
    key = _lines_of_key(box.state())
    processes = box.processes()
    programs |= box.waiting_for_viewers()
    for process in processes:
        variables = Path(f"/proc/{process.pid}/environ")
        assert variables.stat().st_mode & 0o077 == 0
        text = os.fsdecode(variables.read_bytes())
        ours = process.pid in programs
        assert (_OF_THE_FIRST in text, _OF_A_COMMAND in text) == (ours, not ours)
        assert not [word for word in key if word in text]
    command.terminate()
    command.wait(timeout=60)


@pytest.mark.parametrize("end", ["stop", "idle", "kill-server", "kill"])
def test_key_is_gone_with_its_session(sandbox: Sandbox, end: str) -> None:
    idle = {"LIGHTCONE_IDLE_TIMEOUT": "0.2s"} if end == "idle" else {}
    sandbox.lc("session", "start", env=idle)
    tls = sandbox.state() / "tls"
    if end == "stop":
        sandbox.lc("session", "stop")
    elif end == "kill-server":
        socket = next(sandbox.runtime.glob("*/tmux"))
        subprocess.run(["tmux", "-S", socket, "kill-server"], env=sandbox.env, check=True)
    elif end == "kill":
        os.kill(sandbox.programs()["scheduler"], signal.SIGKILL)
    sandbox.lc("session", "wait", "--for", "end")
    assert list(tls.iterdir()) == []
