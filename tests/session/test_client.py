"""Joining a cluster from Python, and one that is not ours."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lightcone.session.spawn import create_key
from tests.helpers import Sandbox, wait_until
from tests.run.analyses import Analysis, output

_CONNECT = """\
import sys, lightcone
with lightcone.connect(*sys.argv[1:]) as client:
    print(client.submit(pow, 2, 10).result(timeout=60))
"""
# Runs lc with less patience than people are asked for.
_IMPATIENT = """\
from lightcone.cli.main import main
from lightcone.session import client
client._CONNECT_TIMEOUT = 1.0
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


@contextlib.contextmanager
def _cluster(sandbox: Sandbox, first: str = "") -> Iterator[str]:
    """The address of a cluster that lc has not made, where ``first`` is run before anything."""
    script = sandbox.base / "cluster.py"
    script.write_text(f"{first}\n{_CLUSTER}")
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


@contextlib.contextmanager
def _by_hand(sandbox: Sandbox, *options: str) -> Iterator[str]:
    """The address of a scheduler with a worker, each a program that somebody has started."""
    file = sandbox.base / "scheduler.json"
    protocol = ["--protocol", "tls"] if options else []
    common = ["--scheduler-file", str(file), "--no-dashboard", *options]
    with (
        _program(sandbox, "dask_scheduler", "--host", "127.0.0.1", "--port=0", *protocol, *common),
        _program(sandbox, "dask_worker", "--nthreads", "1", "--no-nanny", *common),
    ):
        address: list[str] = []

        def is_there() -> bool:
            with contextlib.suppress(FileNotFoundError, ValueError):  # it is written in place
                address.append(json.loads(file.read_text())["address"])
            return bool(address)

        wait_until(is_there, "the scheduler is there")
        yield address[0]


@contextlib.contextmanager
def _program(sandbox: Sandbox, name: str, *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-m", f"distributed.cli.{name}", *arguments]
    program = subprocess.Popen(
        command,
        cwd=sandbox.base,
        env=sandbox.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        program.kill()
        program.wait(30)


@pytest.fixture
def external(sandbox: Sandbox) -> Iterator[str]:
    """The address of a cluster that lc has not made."""
    with _cluster(sandbox) as address:
        yield address


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
    assert time.monotonic() - begun < 30
    assert result.stderr.startswith(f"lc: The cluster at {address} cannot be reached (")
    assert result.stderr.endswith("or unset that variable.\n")
    assert len(result.stderr.splitlines()) == 1
    assert sandbox.processes() == []


@pytest.mark.parametrize("encrypted", [False, True])
def test_programs_that_somebody_started_make_what_is_wanted(
    sandbox: Sandbox, encrypted: bool
) -> None:
    analysis = Analysis(sandbox)
    analysis.spec(output("x", "echo it > {output}"), output("y", "cp {inputs.x} {output}", ("x",)))
    key = sandbox.base / "key.pem"
    create_key(key)
    options = [f"--tls-{name}={key}" for name in ("ca-file", "cert", "key")] if encrypted else []
    with _by_hand(sandbox, *options) as address:
        env = {"DASK_SCHEDULER_ADDRESS": address}
        wait_until(lambda: _workers(sandbox, env, key if encrypted else None), "it has a worker")
        if encrypted:
            told = analysis.run(check=3, env=env).stderr
            assert told.startswith(f"lc: The cluster at {address} wants a key, and the settings ")
            env |= _settings(key)
        assert analysis.summary(env=env)["made"] == 2
        assert analysis.text("y") == "it\n"
        assert analysis.summary(env=env)["up_to_date"] == 2
    assert not (sandbox.scratch / ".lightcone" / "sessions").exists()
    key.unlink()
    analysis.close()


def test_cluster_of_ones_own_that_is_lost_on_the_way_is_told_of(sandbox: Sandbox) -> None:
    analysis = Analysis(sandbox)
    analysis.spec(output("x", "touch $PLACE/begun; exec sleep 100"))
    with _by_hand(sandbox) as address:
        env = {"DASK_SCHEDULER_ADDRESS": address}
        wait_until(lambda: _workers(sandbox, env, None), "it has a worker")
        program = analysis.begin(env=env)
        analysis.began("begun")
        assert program.stdout is not None
        assert program.stdout.readline() == b"baseline/x: started\n"
        for process in sandbox.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "distributed.cli.dask_scheduler" in process.cmdline():
                    process.kill()
        _, err = program.communicate(timeout=60)
        wait_until(lambda: not analysis.recipes(), "the recipe has ended")
    assert program.returncode == 3
    assert err.decode() == (
        "lc: The cluster ended during the run (the connection to it was lost): run again, and what "
        "was made is kept.\n"
    )
    analysis.close()


def _settings(key: Path) -> dict[str, str]:
    name = "DASK_DISTRIBUTED__COMM__TLS__"
    return {f"{name}{each}": str(key) for each in ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")}


def _workers(sandbox: Sandbox, env: dict[str, str], key: Path | None) -> object:
    settings = {} if key is None else _settings(key)
    told = sandbox.lc("session", "status", "--json", env={**env, **settings}).stdout
    return json.loads(told)["workers"]


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (
            "import lightcone; lightcone.__version__ = '0.0.9'",
            "runs lightcone 0.0.9 on ",
        ),
        (
            "import sys; sys.modules['lightcone'] = None",
            "cannot be used (",
        ),
        (
            "import lightcone.wire.node as node, lightcone\n"
            "def probe(root): return {'root': False, 'version': lightcone.__version__}\n"
            "node.probe_process = probe",
            "does not see the project's directory ",
        ),
    ],
    ids=["version", "package", "project"],
)
def test_cluster_of_ones_own_that_lacks_something(sandbox: Sandbox, first: str, told: str) -> None:
    with _cluster(sandbox, first) as address:
        env = {"DASK_SCHEDULER_ADDRESS": address}
        result = sandbox.lc("exec", "--", "true", check=125, env=env)
    named = "lc: The cluster named by DASK_SCHEDULER_ADDRESS "
    assert result.stderr.startswith(named + told)
    assert len(result.stderr.splitlines()) == 1
