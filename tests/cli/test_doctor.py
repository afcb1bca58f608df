"""``lc doctor`` on this machine, and on one that is not fit."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

from tests.helpers import Sandbox

_CANARY = "canary-of-the-caller-03be"
_NAMES = [
    *("python", "engine", "tmux", "directories", "socket path", "locks", "disk", "clock"),
    *("cleaners", "logout", "memory", "open files", "processes", "observation", "slurm", "hooks"),
    "containers",
]


def test_a_fit_machine(sandbox: Sandbox) -> None:
    told = json.loads(sandbox.lc("doctor", "--json").stdout)
    assert list(told) == ["system", "versions", "checks"]
    assert [check["name"] for check in told["checks"]] == _NAMES
    verdicts = {check["name"]: check["verdict"] for check in told["checks"]}
    assert {verdicts[name] for name in _NAMES[:8]} == {"ok"}
    for check in told["checks"]:
        assert check["verdict"] in ("ok", "warning", "failure")
        assert bool(check["remedy"]) == (check["verdict"] != "ok")
        assert check["found"]
    assert told["system"].startswith("lightcone ")
    assert {line.split()[0] for line in told["versions"]} >= {"tmux", "distributed", "astra-tools"}


def test_table_and_what_to_paste(sandbox: Sandbox) -> None:
    """The last lines are for strangers: versions, and nothing of this user or machine."""
    out = sandbox.lc("doctor", env={"CALLERS_TOKEN": _CANARY}).stdout
    table, _, report = out.partition("\nFor a report of a bug:\n")
    lines = [line for line in table.splitlines() if "→" not in line]
    assert [line[9 : 9 + len("directories")].strip() for line in lines] == [
        name[: len("directories")] for name in _NAMES
    ]
    system, versions, summary = report.splitlines()
    assert system.startswith("lightcone ")
    assert ", Python 3." in system
    assert "distributed 20" in versions
    assert summary == "nothing found wrong" or summary.startswith(("warning: ", "failure: "))
    for private in (str(sandbox.base), os.path.expanduser("~"), socket.gethostname(), "/"):
        assert private not in report.replace("x86_64/", "")
    assert _CANARY not in out


def test_it_works_outside_any_project(sandbox: Sandbox) -> None:
    sandbox.lc("doctor", cwd=sandbox.home)


def test_it_leaves_a_session_alone(shared: Sandbox) -> None:
    before = shared.status()
    shared.lc("doctor")
    assert shared.status() == before


def test_without_the_terminal_server(sandbox: Sandbox, tmp_path: Path) -> None:
    result = sandbox.lc("doctor", check=1, env={"PATH": str(tmp_path)})
    assert "failure  tmux" in result.stdout
    assert "→ install tmux" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("failure: tmux")


def test_with_an_engine_that_cannot_be_imported(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('of another Python')\n")
    result = sandbox.lc("doctor", check=1, env={"PYTHONPATH": str(tmp_path)})
    assert "failure  engine" in result.stdout
    assert "(ImportError: of another Python)" in result.stdout


def test_a_directory_open_to_all_is_a_failure(sandbox: Sandbox) -> None:
    (sandbox.base / "link").symlink_to(sandbox.home)
    env = {"LIGHTCONE_RUNTIME_DIR": str(sandbox.base / "link")}
    result = sandbox.lc("doctor", check=1, env=env)
    assert "failure  directories" in result.stdout


def test_scratch_that_is_a_file(sandbox: Sandbox) -> None:
    shutil.rmtree(sandbox.scratch)
    sandbox.scratch.touch()
    result = sandbox.lc("doctor", "--json", check=1)
    failed = [each for each in json.loads(result.stdout)["checks"] if each["verdict"] == "failure"]
    assert [each["name"] for each in failed] == ["directories", "locks"]
    sandbox.scratch.unlink()
