"""A machine that slept, and a clock that is set, take nothing from a session."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import Sandbox, wait_until
from tests.specs import recipe, spec

_CLOCK = Path(__file__).parents[1] / "fixtures" / "clock.c"
_DAY = 86400
_ASLEEP = 9.0
# Limits of which less than half is used awake, and which the time asleep exceeds.
_LIMIT = "8s"


def _prepare(sandbox: Sandbox, limit: str, idle: str) -> Path:
    """Make the sandbox's a project of two outputs, and return the path that the first waits for."""
    gate = sandbox.base / "gate"
    waits = f"until [ -e {gate} ]; do echo waiting; sleep 0.01; done; echo hello > {{output}}"
    first = recipe("first", waits, time_limit=limit)
    second = recipe("second", "cat {inputs.first} > {output}", ("first",))
    (sandbox.project / "astra.yaml").write_text(spec(first, second))
    settings = f'[session]\nidle_timeout = "{idle}"\nforgotten_timeout = "{idle}"\n'
    (sandbox.project / "lightcone.toml").write_text(settings)
    return gate


def _is_running(sandbox: Sandbox) -> bool:
    logs = sandbox.project.glob("results/*/.lightcone/first/log.txt")
    return any("\nwaiting\n" in log.read_text() for log in logs)


def _finish(sandbox: Sandbox, run: subprocess.Popen[bytes], programs: dict[str, int]) -> None:
    """The run finishes, on the session with the programs that it began with."""
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, (out, err)
    made = list((sandbox.project / "results").glob("*/second.txt"))
    assert [path.read_text() for path in made] == ["hello\n"]
    assert sandbox.programs() == programs


def test_everything_asleep(sandbox: Sandbox) -> None:
    gate = _prepare(sandbox, _LIMIT, idle=_LIMIT)
    command = sandbox.popen("exec", "--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.1; done")
    run = sandbox.popen("run")
    wait_until(lambda: _is_running(sandbox), "the recipe runs")
    programs = sandbox.programs()
    # The terminal server first: it wakes what it finds asleep in its windows.
    found = sorted(sandbox.processes(), key=lambda process: process.pid != programs["tmux"])
    asleep = []
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):  # the recipe's own come and go
            process.suspend()
            asleep.append(process)
    stopped = {run.pid, command.pid, *programs.values()}
    assert stopped <= {process.pid for process in asleep}
    begun = time.monotonic()
    wait_until(lambda: time.monotonic() > begun + _ASLEEP, "more than any limit has passed")
    for process in asleep:
        with contextlib.suppress(psutil.NoSuchProcess):
            # One that had just ended is left to its parent, which is stopped.
            has_ended = process.status() == psutil.STATUS_ZOMBIE and process.pid not in stopped
            assert has_ended or process.status() == psutil.STATUS_STOPPED
    gate.touch()
    for process in reversed(asleep):
        with contextlib.suppress(psutil.NoSuchProcess):  # its parent has just been told of its end
            process.resume()
    _finish(sandbox, run, programs)
    assert command.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that, preloaded, shifts the time of day."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    built = tmp_path_factory.mktemp("clock") / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(built), str(_CLOCK), "-ldl"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"the clock cannot be built: {result.stderr}")
    return built


def _set(offset: Path, seconds: int) -> None:
    with open(offset, "r+b" if offset.exists() else "wb") as file:
        file.write(seconds.to_bytes(8, "little", signed=True))


@pytest.mark.parametrize("days", [-3, 2], ids=["back", "forward"])
def test_clock_is_set(sandbox: Sandbox, clock: Path, days: int) -> None:
    offset = sandbox.base / "offset"
    _set(offset, 0)
    sandbox.env |= {"CLOCK_OFFSET": str(offset), "LD_PRELOAD": str(clock)}
    gate = _prepare(sandbox, "30s", idle="3s")
    run = sandbox.popen("run")
    wait_until(lambda: _is_running(sandbox), "the recipe runs")
    programs = sandbox.programs()
    was = sandbox.python("-c", "import time; print(time.time())").stdout
    _set(offset, days * _DAY)
    now = sandbox.python("-c", "import time; print(time.time())").stdout
    assert abs(float(now) - float(was) - days * _DAY) < _DAY / 2
    # One that comes now is let in, is heard, and ends when it is to end.
    assert sandbox.lc("exec", "--", "echo", "hello").stdout == "hello\n"
    sandbox.lc("exec", "--", "false", check=1)
    assert run.poll() is None
    gate.touch()
    _finish(sandbox, run, programs)
    sandbox.lc("session", "wait", "--for", "end", "--timeout", "60")
    assert sandbox.status()["ended"]["reason"] == "idle for 3.0 s"
    _set(offset, (days - 1) * _DAY)
    told = sandbox.lc("exec", "--", "true").stderr.splitlines()[0]
    assert told == "lc: the last session ended 0.0 s ago: idle for 3.0 s"


def test_clock_was_wrong_when_the_session_began(sandbox: Sandbox, clock: Path) -> None:
    """By years: it is then put right, and the next call still finds and uses the session."""
    offset = sandbox.base / "offset"
    _set(offset, 4000 * _DAY)
    sandbox.env |= {"CLOCK_OFFSET": str(offset), "LD_PRELOAD": str(clock)}
    started = sandbox.start()["started"]
    programs = sandbox.programs()
    for days in (0, -4000):
        _set(offset, days * _DAY)
        assert sandbox.lc("exec", "--", "echo", "hello").stdout == "hello\n"
    assert sandbox.programs() == programs
    assert json.loads(sandbox.lc("session", "status", "--json").stdout)["started"] == started
