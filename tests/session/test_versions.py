"""Sessions and the versions of lightcone around them: other ones, and one that is replaced."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import lightcone
from lightcone.wire.protocol import PROTOCOL
from tests.helpers import Sandbox, told, wait_until
from tests.specs import recipe, spec


class _Copy:
    """A copy of the package, as if installed from elsewhere."""

    def __init__(self, place: Path) -> None:
        self.package = place / "lightcone"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(lightcone.__file__).parent, self.package, ignore=ignored)
        self.env = {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}

    def change(self, file: str, old: str, new: str) -> None:
        path = self.package / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def replace_all(self) -> None:
        """Every module is another one now, which nobody can use."""
        for path in self.package.rglob("*.py"):
            path.unlink()
            path.write_text("raise RuntimeError('a module of another version was imported')\n")

    def remove(self) -> None:
        shutil.rmtree(self.package)


@pytest.fixture
def copy(sandbox: Sandbox) -> _Copy:
    return _Copy(sandbox.base / "site")


@pytest.fixture
def of_tomorrow(sandbox: Sandbox, copy: _Copy) -> _Copy:
    """A lightcone of the future, whose session is there."""
    tomorrow = PROTOCOL + 1
    copy.change("wire/protocol.py", f"PROTOCOL = {PROTOCOL}\n", f"PROTOCOL = {tomorrow}\n")
    copy.change("__init__.py", lightcone.__version__, "9.0")
    sandbox.lc("session", "start", env=copy.env)
    assert json.loads((sandbox.state() / "session.json").read_bytes())["protocol"] == tomorrow
    return copy


def test_session_of_another_protocol_is_replaced_when_idle(
    sandbox: Sandbox, of_tomorrow: _Copy
) -> None:
    before = sandbox.programs()
    assert sandbox.status()["state"] == "alive"
    result = sandbox.lc("exec", "--", "echo", "hello")
    assert result.stdout == "hello\n"
    replaced, ended, starting = told(result.stderr)
    assert replaced == "lc: replacing a session of another version"
    assert ended.endswith(" ago: replaced by another version")
    assert starting.startswith("lc: starting the session ")
    assert not set(sandbox.programs().values()) & set(before.values())
    # And the other way round.
    result = sandbox.lc("exec", "--", "true", env=of_tomorrow.env)
    assert result.stderr.startswith("lc: replacing a session of another version\n")


def test_session_of_another_protocol_is_refused_when_busy(
    sandbox: Sandbox, of_tomorrow: _Copy
) -> None:
    before = sandbox.programs()
    gate = sandbox.base / "gate"
    command = ("exec", "--", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.1; done")
    runs = [sandbox.popen(*command, env=of_tomorrow.env) for _ in range(2)]
    wait_until(lambda: len(_users(sandbox)) == 2, "both are known to the session")
    refused = sandbox.lc("exec", "--", "true", check=125).stderr
    named = ", ".join(f"lc exec, pid {pid}" for pid in _users(sandbox))
    assert refused == (
        f"lc: The session {sandbox.status()['name']} was started by lightcone 9.0 with Python "
        f"{sys.version_info.major}.{sys.version_info.minor}, which this one cannot use, and "
        f"replacing it would end {named}: wait for that, or run 'lc session stop'.\n"
    )
    assert {run.pid for run in runs} == set(_users(sandbox))
    gate.touch()
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert sandbox.programs() == before


def _users(sandbox: Sandbox) -> list[int]:
    return [run["pid"] for run in sandbox.status()["runs"]]


@pytest.mark.parametrize("upgrade", ["replace_all", "remove"])
def test_upgrade_under_a_run_harms_nothing(sandbox: Sandbox, copy: _Copy, upgrade: str) -> None:
    """Recipes are running and queued, a command waits; the session served nobody before."""
    began, gate = sandbox.base / "began", sandbox.base / "gate"
    waits = f"touch {began}; until [ -e {gate} ]; do sleep 0.1; done; echo hello > {{output}}"
    outputs = [
        recipe("first", waits),
        recipe("second", "cat {inputs.first} > {output}", ("first",)),
        recipe("bad", "echo no; exit 3", ("first",)),
        recipe("slow", "sleep 100", ("first",), time_limit="1s"),
    ]
    (sandbox.project / "astra.yaml").write_text(spec(*outputs))
    sandbox.lc("session", "start", env=copy.env)
    programs = sandbox.programs()
    run = sandbox.popen("run", env=copy.env)
    wait_until(began.exists, "the first recipe runs")
    getattr(copy, upgrade)()
    # The new version uses the session that the old one has started, for what it never did before.
    assert sandbox.lc("exec", "--", "echo", "hello").stdout == "hello\n"
    gate.touch()
    out, err = (text.decode() for text in run.communicate(timeout=60))
    assert (run.returncode, err) == (1, ""), out
    assert "baseline/bad: FAILED, exit code 3" in out
    assert "baseline/slow: FAILED, it was ended at its time limit of 1.0 s" in out
    assert "lc: 2 made, 2 failed in " in out
    assert sandbox.programs() == programs
    sandbox.lc("session", "stop")
    logs = (sandbox.scratch / ".lightcone" / "sessions").glob("*/logs/*.log")
    assert not [log for log in logs if "another version was imported" in log.read_text()]


def test_upgrade_before_the_first_use_harms_nothing(sandbox: Sandbox, copy: _Copy) -> None:
    sandbox.lc("session", "start", env=copy.env)
    programs = sandbox.programs()
    copy.replace_all()
    assert sandbox.lc("exec", "--", "echo", "hello").stdout == "hello\n"
    sandbox.lc("run")
    assert sandbox.programs() == programs
    sandbox.lc("session", "stop")


def test_interrupt_after_an_upgrade(sandbox: Sandbox, copy: _Copy) -> None:
    began = sandbox.base / "began"
    script = f"touch {began}; sleep 100"
    command = sandbox.popen("exec", "--", "sh", "-c", script, env=copy.env)
    wait_until(began.exists, "the command runs")
    copy.remove()
    command.terminate()
    assert command.wait(timeout=60) == 130
    assert command.stderr is not None
    assert b"Traceback" not in command.stderr.read()
