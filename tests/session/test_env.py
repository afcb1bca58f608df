"""A program of the user's own joins the session, in his shell and in what the session runs."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers import Sandbox

_PROGRAM = """if True:
    from distributed import Client
    with Client(timeout=20) as client:
        print(client.submit(sum, [1, 2]).result(timeout=30))
"""


def test_a_bare_client_joins(shared: Sandbox) -> None:
    script = (
        f'eval "$({sys.executable} -m lightcone session env)" && '
        f"{sys.executable} -c '{_PROGRAM}' && {sys.executable} -m lightcone session status --json"
    )
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=shared.project,
        env=shared.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    answer, told = result.stdout.splitlines()
    assert answer == "3"
    # lc knows its own session in such a shell.
    assert json.loads(told)["kind"] == "project"
    assert json.loads(told)["key"] == shared.status()["key"]


def test_what_the_session_runs_finds_it_too(shared: Sandbox) -> None:
    assert shared.lc("exec", "--", sys.executable, "-c", _PROGRAM).stdout == "3\n"
    # However little of the worker it leaves free.
    cpus = str(int(shared.status()["workers"][0]["cpus"]))
    exec_ = ("exec", "--cpus", cpus, "--", sys.executable, "-c", _PROGRAM)
    assert shared.lc(*exec_).stdout == "3\n"


def test_another_cluster_that_the_caller_names_wins_in_his_programs(shared: Sandbox) -> None:
    env = {"DASK_SCHEDULER_ADDRESS": "tcp://127.0.0.1:1", "LIGHTCONE_SESSION_ADDRESS": "x"}
    told = shared.lc("exec", "--", "true", env=env, check=125).stderr
    assert "cannot be reached" in told


def test_a_client_shows_itself_in_a_notebook(shared: Sandbox) -> None:
    code = "import lightcone\nwith lightcone.connect() as c: print(c._repr_html_())"
    shown = shared.python("-c", code).stdout
    assert shared.status()["name"] in shown
    assert "(running)" in shown
    assert "cpus" in shown
