"""Faults of every kind at any moment, under load from two contexts, and what holds after each."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.helpers import Sandbox, wait_until
from tests.run.analyses import Analysis, output

# `make soak` asks for more.
_ROUNDS = int(os.environ.get("FAULT_ROUNDS", "5"))
_LONGEST = 2.0
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSTOP)
_INPUTS: dict[str, tuple[str, ...]] = {
    **{f"o{n}": ("raw",) for n in range(4)},
    **{f"o{n}": (f"o{n - 4}",) for n in range(4, 12)},
}
# Two writers at once would meet at the lock.
_SUM = (
    "exec 9> {{output}}.writer; flock -n 9 || exit 77; sum=$(cat {{inputs}} | paste -s -d + -); "
    "echo half > {{output}}; sleep 0.05; echo $((sum + {number})) > {{output}}"
)
_DELETED = ("control", "tmux", "session.json", "spawn.json", "engine.json", "session.pem")
# A recipe that was killed itself has failed, as it should; and so has one beside it on a full disk.
_CODES = (0, 1, 3, 124, 125, 129, 130, 137, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP)


def _expected(raw: int) -> dict[str, str]:
    values = {"raw": raw}
    for name, inputs in _INPUTS.items():
        values[name] = sum(values[each] for each in inputs) + int(name[1:])
    return {name: f"{values[name]}\n" for name in _INPUTS}


class _Trial:
    """One project, used from two contexts at once: one's scratch and sockets are not the other's.

    Attributes:
        seen: how often each kind of fault was injected.
    """

    def __init__(self, alone: Analysis, chance: random.Random) -> None:
        self.alone = alone
        self.box = alone.box
        self.chance = chance
        self.seen: dict[str, int] = {}
        self.disk = self.box.scratch / "filler"
        self.environments: list[dict[str, str]] = [{}]
        for name in ("scratch2", "run2"):
            (self.box.base / name).mkdir()
        self.environments.append(
            {
                "LIGHTCONE_SCRATCH": str(self.box.base / "scratch2"),
                "LIGHTCONE_RUNTIME_DIR": str(self.box.base / "run2"),
            }
        )

    def load(self) -> list[subprocess.Popen[bytes]]:
        """Runs and commands in both contexts at once."""
        programs = [
            self.alone.begin(*(["-f"] if self.chance.random() < 0.2 else []), env=environment)
            for environment in (*self.environments, self.environments[0])
        ]
        for environment in self.environments:
            command = ("exec", "--cpus", "0.1", "--", "sleep", "0.3")
            programs.append(self.box.popen(*command, env=environment))
        return programs

    def fault(self) -> str:
        """Do one harmful thing, and say what it was."""
        kinds: list[Callable[[], str]] = [self._signal] * 6 + [self._delete] * 2 + [self._fill]
        what = self.chance.choice(kinds)()
        kind = what.partition(" ")[0]
        self.seen[kind] = self.seen.get(kind, 0) + 1
        return what

    def _signal(self) -> str:
        processes = self.box.processes()
        if not processes:
            return "nothing to signal"
        victim = self.chance.choice(processes)
        sent = self.chance.choice(_SIGNALS)
        shown = "gone"
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            shown = " ".join(victim.cmdline())[-60:]
            victim.send_signal(sent)
        return f"{sent.name} to {victim.pid} ({shown})"

    def _delete(self) -> str:
        paths = [path for path in self.box.base.rglob("*") if path.name in _DELETED]
        if not paths:
            return "nothing to delete"
        path = self.chance.choice(paths)
        path.unlink(missing_ok=True)
        return f"deleted {path.relative_to(self.box.base)}"

    def _fill(self) -> str:
        if not os.path.ismount(self.box.scratch):
            return "no disk to fill"
        with contextlib.suppress(OSError), open(self.disk, "wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
        return "filled the disk of scratch"

    def resume(self) -> None:
        """Let what was stopped go on, and make room again."""
        self.disk.unlink(missing_ok=True)
        for process in self.box.processes():
            with contextlib.suppress(psutil.Error):
                process.resume()

    def stop(self, environment: dict[str, str]) -> None:
        """End the session of one context, by force if it cannot be told whether it lives."""
        self.box.lc("session", "stop", "--force", env=environment)


@pytest.fixture
def small_scratch(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A sandbox whose scratch is a small disk of its own, where this user may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(sandbox.scratch)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    try:
        yield sandbox
        sandbox.lc("session", "stop", "--force", check=None)
    finally:
        if mounted:
            for path in sandbox.scratch.iterdir():
                shutil.rmtree(path, ignore_errors=True)
            subprocess.run(["umount", "--lazy", str(sandbox.scratch)], check=True)


@pytest.mark.timeout(240 + 40 * _ROUNDS)
def test_the_next_run_succeeds_whatever_has_happened(small_scratch: Sandbox) -> None:
    seed = int(os.environ.get("SEED", "20261122"))
    chance = random.Random(seed)  # noqa: S311 (which fault is no secret)
    alone = Analysis(small_scratch)
    trial = _Trial(alone, chance)
    alone.spec(
        *(
            output(name, _SUM.format(number=name[1:]), inputs, suffix="n")
            for name, inputs in _INPUTS.items()
        ),
        inputs=[{"id": "raw", "type": "data", "source": "raw.txt"}],
    )
    for round_ in range(_ROUNDS):
        raw = chance.randrange(1, 1000)
        alone.write("raw.txt", f"{raw}\n")
        programs = trial.load()
        told = f"seed {seed}, round {round_}"
        for _ in range(chance.choice((1, 1, 2, 3))):
            moment = chance.uniform(0.0, _LONGEST)
            with contextlib.suppress(subprocess.TimeoutExpired):
                programs[0].wait(moment)
            told += f"; after {moment:.2f} s {trial.fault()}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            programs[0].wait(chance.uniform(0.0, _LONGEST))
        trial.resume()
        for program in programs:
            out, errors = program.communicate(timeout=120)
            shown = f"{told}\n{program.args!r}: {program.returncode}\n{out!r}\n{errors.decode()}"
            assert program.returncode in _CODES, shown
            assert b"Traceback" not in errors, shown
            assert b"exit code 77" not in out, shown
            assert re.search(rb"^lc: ", errors) or not errors, shown
        for environment in trial.environments:
            again = alone.run(check=None, env=environment)
            shown = f"{told}\nthen {again.returncode}\n{again.stdout}\n{again.stderr}"
            assert again.returncode == 0, shown
        found = {name: alone.path(name, suffix="n").read_text() for name in _INPUTS}
        assert found == _expected(raw), told
        assert alone.leftovers() == [], told
        wait_until(lambda: not alone.recipes(), f"no recipe is left: {told}")
        for part in ("scheduler", "worker", "tmux"):
            count = sum(_is(process, part) for process in small_scratch.processes())
            assert count <= len(trial.environments), (told, small_scratch.describe())
        print(f"{told}: all good", flush=True)
    print(f"seed {seed}: {_ROUNDS} rounds, faults {trial.seen}")
    assert set(alone.states().values()) == {"ok"}
    for environment in trial.environments:
        trial.stop(environment)


def _is(process: psutil.Process, part: str) -> bool:
    with contextlib.suppress(psutil.Error):
        line = process.cmdline()
        if part == "tmux":
            return "new-session" in line
        return f"distributed.cli.dask_{part}" in line and not any("guard" in each for each in line)
    return False
