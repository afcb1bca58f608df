"""A supervisor holds its locks until the runtime reports its container gone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from lightcone.system import guard
from lightcone.system.locks import Lock
from lightcone.worker.container_handle import ContainerHandle
from lightcone.worker.container_supervisor import NAME, RuntimeCommands
from tests.helpers import is_alive, wait_until

# A worker that holds a lock for a container, and is killed when its input ends.
_WORKER = """\
import json, os, sys
from pathlib import Path
from lightcone.worker.container_supervisor import RuntimeCommands
from lightcone.worker.container_handle import ContainerHandle
from lightcone.system.locks import Lock
commands, grace, place, client = json.loads(sys.argv[1])
lock = Lock(Path(place, "lock"))
assert lock.acquire()
supervisor = ContainerHandle(RuntimeCommands(**commands), dict(os.environ), grace)
with supervisor.holding([lock.fd]):
    if client:
        supervisor.started(client)
    print("holding", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), 9)
"""


class Runtime:
    """Programs that stand for a runtime's, and a container that is there while a file is."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.container = place / "container"
        self.container.touch()
        self.lock = place / "lock"
        shown = f"if [ -e {self.container} ]; then echo name; fi"
        self.commands = RuntimeCommands(
            terminate=_sh(f"[ -e {place}/open ] && echo ask >> {place}/said"),
            kill=_sh(f"echo kill >> {place}/said"),
            remove=_sh(f"rm {self.container}"),
            running=_sh(shown),
            exists=_sh(f"echo look >> {place}/looks; [ ! -e {place}/away ] || exit 1; {shown}"),
        )

    def supervisor(self) -> ContainerHandle:
        """A supervisor of the container for this process."""
        return ContainerHandle(self.commands, dict(os.environ), 60.0)

    def said(self) -> list[str]:
        """What the container was told."""
        path = self.place / "said"
        return path.read_text().split() if path.exists() else []

    def looked(self) -> int:
        """How often it was looked for."""
        path = self.place / "looks"
        return len(path.read_text().split()) if path.exists() else 0

    def set(self, name: str, on: bool = True) -> None:
        """Let the container be asked (``open``), or the runtime not answer (``away``)."""
        path = self.place / name
        if on:
            path.touch()
        else:
            path.unlink()


def _sh(command: str) -> list[str]:
    return ["/bin/sh", "-c", command]


def _children(pid: int) -> list[int]:
    return [each.pid for each in psutil.Process(pid).children()]


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(tmp_path)


Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def small_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes as small as those of a user who has a thousand of them (pipe(7))."""
    pipe = os.pipe

    def small() -> tuple[int, int]:
        reader, writer = pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        return reader, writer

    monkeypatch.setattr(os, "pipe", small)


@pytest.fixture
def begin(runtime: Runtime) -> Iterator[Begin]:
    """Starts a worker that holds the lock for its container, with this grace and client."""
    programs = []

    def begin(grace: float, client: int = 0, under: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        told = json.dumps([asdict(runtime.commands), grace, str(runtime.place), client])
        program = subprocess.Popen(
            [*under, sys.executable, "-c", _WORKER, told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        programs.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == "holding\n"
        return program

    yield begin
    (runtime.place / "away").unlink(missing_ok=True)
    for program in programs:
        program.communicate()
    wait_until(lambda: Lock.is_free(runtime.lock), "the supervisor has ended")


def test_it_leaves_when_the_container_is_gone(runtime: Runtime) -> None:
    runtime.container.unlink()
    begun = time.monotonic()
    with runtime.supervisor().holding([]):
        pass
    assert time.monotonic() - begun < 30
    assert runtime.said() == []


@pytest.mark.skipif(sys.platform != "linux", reason="pipes have one size elsewhere")
@pytest.mark.usefixtures("small_pipes")
@pytest.mark.timeout(30)
def test_it_starts_where_pipes_are_small(runtime: Runtime) -> None:
    with runtime.supervisor().holding([]):
        runtime.container.unlink()
    assert runtime.said() == []


def test_what_is_left_of_the_container_is_ended(runtime: Runtime) -> None:
    with runtime.supervisor().holding([]):
        pass
    assert not runtime.container.exists()
    assert runtime.said() == ["kill"]


def test_asked_until_the_container_could_be_asked(runtime: Runtime) -> None:
    with runtime.supervisor().holding([]) as supervisor:
        supervisor.terminate()
        supervisor.terminate()
        assert runtime.said() == []
        runtime.set("open")
        wait_until(runtime.said, "it was asked")
    assert runtime.said() == ["ask", "kill"]


def test_another_takes_the_place_of_a_killed_one(runtime: Runtime) -> None:
    before = _children(os.getpid())
    with runtime.supervisor().holding([]) as supervisor:
        (pid,) = set(_children(os.getpid())) - set(before)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), "it is dead")
        supervisor.terminate()
    assert not runtime.container.exists()


def test_worker_killed(runtime: Runtime, begin: Begin) -> None:
    runtime.set("open")
    begin(60.0, client=_gone()).kill()
    wait_until(runtime.said, "it was asked to end")
    assert not Lock.is_free(runtime.lock)
    runtime.container.unlink()
    wait_until(lambda: Lock.is_free(runtime.lock), "the supervisor has ended")
    assert runtime.said() == ["ask"]


def test_worker_killed_whose_container_does_not_end(runtime: Runtime, begin: Begin) -> None:
    runtime.set("open")
    begin(0.5, client=_gone()).kill()
    wait_until(lambda: Lock.is_free(runtime.lock), "the supervisor has ended")
    assert not runtime.container.exists()
    assert runtime.said() == ["ask", "kill"]


def test_no_answer_is_not_taken_for_the_end(runtime: Runtime, begin: Begin) -> None:
    runtime.container.unlink()
    runtime.set("away")
    begin(0.0, client=_gone()).kill()
    wait_until(lambda: runtime.looked() > 3, "it was looked for")
    assert not Lock.is_free(runtime.lock)
    runtime.set("away", False)
    wait_until(lambda: Lock.is_free(runtime.lock), "the supervisor has ended")


def test_client_is_asked_with_its_container(runtime: Runtime) -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as client,
        runtime.supervisor().holding([]) as supervisor,
    ):
        supervisor.terminate()
        assert client.poll() is None
        supervisor.started(client.pid)
        assert client.wait(timeout=30) == -signal.SIGTERM


def test_client_that_goes_on_without_its_worker_is_ended(runtime: Runtime, begin: Begin) -> None:
    runtime.container.unlink()
    with subprocess.Popen(["sh", "-c", "trap '' TERM; exec sleep 60"]) as client:
        begin(0.5, client=client.pid).kill()
        assert client.wait(timeout=30) == -signal.SIGKILL
    wait_until(lambda: Lock.is_free(runtime.lock), "the supervisor has ended")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no guard becomes its parent")
def test_guard_lets_it_finish(runtime: Runtime, begin: Begin) -> None:
    """Neither asked nor ended by the guard, though it takes longer than the guard's grace."""
    runtime.set("away")
    under = (sys.executable, "-I", "-S", guard.__file__, "--grace=0.2", "--")
    outer = begin(0.2, under=under)
    # Its worker, which a guard gives no input, is dead by now.
    wait_until(lambda: not runtime.container.exists(), "the container was ended")
    (supervisor,) = _children(outer.pid)
    assert psutil.Process(supervisor).name() == NAME
    seen = runtime.looked()
    wait_until(lambda: runtime.looked() > seen + 5, "more than the grace has passed")
    assert is_alive(supervisor)
    assert outer.poll() is None
    runtime.set("away", False)
    assert outer.wait(timeout=30) == 128 + signal.SIGKILL
    assert not is_alive(supervisor)


def _gone() -> int:
    """The process id of a program that has ended."""
    with subprocess.Popen(["true"]) as program:
        pass
    return program.pid
