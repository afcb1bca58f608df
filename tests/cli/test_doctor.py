"""``lc doctor`` on this machine, and on one that is not fit."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers import Sandbox


def test_a_fit_machine(sandbox: Sandbox) -> None:
    told = json.loads(sandbox.lc("doctor", "--json").stdout)
    verdicts = {check["name"]: check["verdict"] for check in told["checks"]}
    assert {verdicts[name] for name in ("python", "tmux", "directories", "locks")} == {"ok"}
    assert told["system"].startswith("lightcone ")


def test_it_works_outside_any_project(sandbox: Sandbox) -> None:
    sandbox.lc("doctor", cwd=sandbox.home)


def test_without_the_terminal_server(sandbox: Sandbox, tmp_path: Path) -> None:
    result = sandbox.lc("doctor", check=1, env={"PATH": str(tmp_path)})
    assert "failure  tmux" in result.stdout
    assert "→ install tmux" in result.stdout


def test_a_directory_open_to_all_is_a_failure(sandbox: Sandbox) -> None:
    (sandbox.base / "link").symlink_to(sandbox.home)
    env = {"LIGHTCONE_RUNTIME_DIR": str(sandbox.base / "link")}
    result = sandbox.lc("doctor", check=1, env=env)
    assert "failure  directories" in result.stdout
