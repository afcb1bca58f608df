"""Joining a cluster from Python, and one that is not ours."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.helpers import Sandbox

_CONNECT = """\
import sys, lightcone
with lightcone.connect(*sys.argv[1:]) as client:
    print(client.submit(pow, 2, 10).result(timeout=60))
"""
# Runs lc with less patience than people are asked for.
_IMPATIENT = """\
from lightcone.cli.main import main
from lightcone.session import connection
connection._CONNECT_TIMEOUT = 1.0
main()
"""
# A cluster as somebody else would make one, which says where it is.
_CLUSTER = """\
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    size = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    with LocalCluster(dashboard_address=None, protocol="tcp://", **size) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


def test_connect_starts_the_session_of_the_project(sandbox: Sandbox) -> None:
    assert sandbox.python("-c", _CONNECT).stdout.splitlines()[0] == "1024"
    programs = sandbox.programs()
    elsewhere = sandbox.python("-c", _CONNECT, str(sandbox.project), cwd=sandbox.base)
    assert elsewhere.stdout.splitlines()[0] == "1024"
    assert sandbox.programs() == programs


def test_connect_outside_a_project(sandbox: Sandbox) -> None:
    code = """if True:
        import lightcone
        try:
            lightcone.connect()
        except lightcone.LightconeError as error:
            print(error)
    """
    told = sandbox.python("-c", code, cwd=sandbox.base).stdout
    assert told.startswith("There is no astra.yaml in ")


@pytest.fixture
def external(sandbox: Sandbox) -> Iterator[str]:
    """The address of a cluster that lc has not made."""
    script = sandbox.base / "cluster.py"
    script.write_text(_CLUSTER)
    cluster = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=sandbox.base,
        env=sandbox.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with cluster:
        assert cluster.stdout is not None
        yield cluster.stdout.readline().strip()
    assert cluster.returncode == 0


def test_cluster_of_ones_own_is_used_and_left_alone(sandbox: Sandbox, external: str) -> None:
    env = {"DASK_SCHEDULER_ADDRESS": external, "FOO": "1"}
    before = {process.pid for process in sandbox.processes()}
    for _ in range(2):
        result = sandbox.lc("exec", "--", "sh", "-c", "echo $FOO; pwd; exit 4", check=4, env=env)
        assert result.stdout == f"1\n{sandbox.project}\n"
        assert result.stderr == ""
    assert {process.pid for process in sandbox.processes()} == before
    assert all(psutil.pid_exists(pid) for pid in before)
    assert not (sandbox.scratch / ".lightcone").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", ":::"])
def test_cluster_of_ones_own_that_is_not_there(sandbox: Sandbox, address: str) -> None:
    env = {"DASK_SCHEDULER_ADDRESS": address}
    begun = time.monotonic()
    result = sandbox.python("-c", _IMPATIENT, "exec", "--", "true", check=125, env=env)
    assert time.monotonic() - begun < 15
    assert result.stderr.startswith(f"lc: The cluster at {address} cannot be reached (")
    assert result.stderr.endswith("or unset that variable.\n")
    assert len(result.stderr.splitlines()) == 1
    assert sandbox.processes() == []
