"""Leases: ending one leaves the session to the others, ending the last ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.helpers import Sandbox, filled_pipe, wait_until

_ADA = {"LIGHTCONE_LEASE": "ada"}
_BOB = {"LIGHTCONE_LEASE": "bob"}


def _ended(box: Sandbox) -> None:
    wait_until(lambda: not box.processes(), "the session has ended")
    assert "its last lease was given up" in box.lc("session", "status").stdout


def test_the_last_lease_ends_the_session(sandbox: Sandbox) -> None:
    sandbox.lc("exec", "--", "true", env=_ADA)
    sandbox.lc("session", "start", "--lease", "bob")
    assert sandbox.status()["leases"] == ["ada", "bob"]
    assert "leased by bob" in sandbox.lc("session", "status").stdout
    sandbox.lc("session", "release", "ada")
    assert sandbox.status()["leases"] == ["bob"]
    programs = sandbox.programs()
    sandbox.lc("session", "release", env=_BOB)
    _ended(sandbox)
    assert programs
    told = sandbox.lc("exec", "--", "true").stderr
    assert "its last lease was given up" in told


def test_a_session_without_leases_is_not_ended_by_giving_one_up(sandbox: Sandbox) -> None:
    sandbox.start()
    sandbox.lc("session", "status", env=_ADA)  # looking takes none
    assert sandbox.status()["leases"] == []
    sandbox.lc("session", "release", "ada")
    assert sandbox.lc("exec", "--", "true").returncode == 0
    assert sandbox.status()["state"] == "alive"


def test_what_is_running_is_finished_first(sandbox: Sandbox) -> None:
    gate, there = sandbox.base / "gate", sandbox.base / "there"
    waiting = f"touch {there}; until [ -e {gate} ]; do sleep 0.1; done; echo done"
    command = sandbox.popen("exec", "--", "sh", "-c", waiting, env=_ADA)
    wait_until(there.exists, "the command runs")
    sandbox.lc("session", "release", "ada")
    assert sandbox.status()["leases"] == []
    gate.touch()
    out, _ = command.communicate(timeout=60)
    assert (command.returncode, out) == (0, b"done\n")
    _ended(sandbox)


def test_a_connected_program_is_a_use(sandbox: Sandbox) -> None:
    code = """if True:
        import sys, lightcone
        with lightcone.connect() as client:
            print("there", flush=True)
            sys.stdin.read()
            assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    """
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=sandbox.project,
        env=sandbox.env | _ADA,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        assert program.stdout.readline() == b"there\n"
        sandbox.lc("session", "release", "ada")
        assert sandbox.status()["state"] == "alive"
        program.stdin.close()
        assert program.wait(timeout=60) == 0
    _ended(sandbox)


def test_a_lease_of_which_nothing_is_heard_expires(sandbox: Sandbox) -> None:
    env = {"LIGHTCONE_IDLE_TIMEOUT": "2"}
    gate = sandbox.base / "gate"
    waiting = f"until [ -e {gate} ]; do sleep 0.1; done"
    busy = sandbox.popen("exec", "--", "sh", "-c", waiting, env=_ADA | env)
    wait_until(lambda: sandbox.status().get("leases") == ["ada"], "ada has her lease")
    sandbox.lc("session", "start", "--lease", "bob", env=env)
    wait_until(lambda: sandbox.status()["leases"] == ["ada"], "bob's has expired")
    sandbox.lc("session", "release", "ada")
    gate.touch()
    assert busy.wait(timeout=60) == 0
    _ended(sandbox)


def test_a_name_that_none_can_have(sandbox: Sandbox) -> None:
    for name in ("", "x" * 201, "two\nlines"):
        result = sandbox.lc("session", "start", "--lease", name, check=2)
        assert "cannot be the name of a lease" in result.stderr
    assert "No lease is named" in sandbox.lc("session", "release", check=2).stderr
    assert os.listdir(sandbox.runtime) == []


def test_the_hook_gives_up_what_its_conversation_took(sandbox: Sandbox) -> None:
    variables = sandbox.base / "variables"
    told = {"session_id": "abc-123", "cwd": str(sandbox.project), "reason": "logout"}

    def hook(event: str) -> None:
        with filled_pipe(json.dumps(told).encode()) as stdin:
            subprocess.run(
                [sys.executable, "-m", "lightcone", "hook", event],
                stdin=stdin,
                cwd=sandbox.project,
                env=sandbox.env | {"CLAUDE_ENV_FILE": str(variables)},
                check=True,
            )

    hook("session-start")
    name = variables.read_text().strip().partition("=")[2].strip("'\"")
    sandbox.lc("exec", "--", "true", env={"LIGHTCONE_LEASE": name})
    sandbox.lc("session", "start", "--lease", "another")
    hook("session-end")
    wait_until(lambda: sandbox.status()["leases"] == ["another"], "its lease is given up")
    sandbox.lc("session", "release", "another")
    _ended(sandbox)
