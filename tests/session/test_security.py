"""Nobody else gets in, and nothing of the first caller leaks into what others use."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.helpers import Sandbox

_LOOPBACK = "127.0.0.1"
# Each would be noticed: a wrong scheduler, no encryption, a web server, code run, an early end.
_POISON = """\
scheduler: "tcp://192.0.2.1:1"
distributed:
  comm:
    require-encryption: false
    default-scheme: tcp
    compression: nonsense
    timeouts: {connect: 1ms}
    tls: {ciphers: NONSENSE, min-version: 1.2, ca-file: /nonexistent, client: {key: /nonexistent}}
  dashboard: {link: "http://192.0.2.1/{port}"}
  admin: {event-loop: nonsense, max-error-length: 1, pdb-on-err: true}
  scheduler:
    allowed-failures: 77
    idle-timeout: 100ms
    no-workers-timeout: 100ms
    worker-ttl: 100ms
    preload: ["poison"]
    http: {routes: ["distributed.http.health"]}
  worker:
    preload: ["poison"]
    lifetime: {duration: 1s}
    memory: {terminate: 0.0001, pause: 0.0001}
    resources: {CPU: 1234}
    http: {routes: ["distributed.http.health"]}
"""
_VARIABLES = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "78",
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "['poison']",
    "DASK_DISTRIBUTED__WORKER__PRELOAD": "['poison']",
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False",
    "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "/nonexistent",
    "DASK_DISTRIBUTED__COMM__TLS__CIPHERS": "NONSENSE",
    "DASK_DISTRIBUTED__DASHBOARD__LINK": "http://192.0.2.1",
    "DASK_LOGGING__DISTRIBUTED": "critical",
    "DASK_TEMPORARY_DIRECTORY": "/nonexistent",
    "DASK_CONFIG": "/nonexistent",
}
_ASK_FOR_SETTINGS = """\
import json, os, pathlib, sys, lightcone
def settings(dask_scheduler=None, dask_worker=None):
    import dask, os
    # What the programs had already read when our settings came.
    wanted = ["allowed_failures", "idle_timeout", "no_workers_timeout", "worker_ttl", "lifetime"]
    server = dask_scheduler or dask_worker
    manager = getattr(dask_worker, "memory_manager", None)
    seen = [getattr(server, name, None) for name in wanted]
    seen += [getattr(manager, "memory_pause_fraction", None), len(server.preloads)]
    variables = [name for name in os.environ if name.startswith("DASK_")]
    return dask.config.config, variables, seen
for name in list(os.environ):
    if name.startswith("DASK_"):
        del os.environ[name]
with lightcone.connect() as client:
    answers = [client.run_on_scheduler(settings), *client.run(settings).values()]
import dask
dask.config.refresh(paths=[sys.argv[1]], env={})
print(json.dumps([dask.config.config, answers]))
"""


def _listeners(sandbox: Sandbox) -> dict[str, list[tuple[str, int]]]:
    found = {}
    for part, pid in sandbox.programs().items():
        connections = psutil.Process(pid).net_connections(kind="inet")
        found[part] = [
            (connection.laddr.ip, connection.laddr.port)
            for connection in connections
            if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
        ]
    return found


def test_listens_on_loopback_and_on_nothing_but_its_two_ports(shared: Sandbox) -> None:
    found = _listeners(shared)
    (scheduler,), (worker,) = found.pop("scheduler"), found.pop("worker")
    assert shared.status()["address"] == f"tls://{scheduler[0]}:{scheduler[1]}"
    assert (scheduler[0], worker[0]) == (_LOOPBACK, _LOOPBACK)
    assert not any(found.values())


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_callers_without_the_key_are_refused(shared: Sandbox, part: str, tmp_path: Path) -> None:
    (address,) = _listeners(shared)[part]
    with socket.create_connection(address, timeout=10) as plain:
        plain.sendall(b"\0" * 64)
        assert not _answers(plain)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.verify_mode = ssl.CERT_NONE
    _refused(address, anonymous)
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    from lightcone.session.spawn import create_key

    create_key(tmp_path / "own.pem")
    stranger.load_cert_chain(tmp_path / "own.pem")
    _refused(address, stranger)


def _refused(address: tuple[str, int], context: ssl.SSLContext) -> None:
    with socket.create_connection(address, timeout=10) as plain:
        try:
            with context.wrap_socket(plain) as connection:
                # With TLS 1.3 the refusal comes with the first answer.
                assert not _answers(connection)
        except (ssl.SSLError, OSError):
            pass


def _answers(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1))
    except TimeoutError:
        raise
    except (ssl.SSLError, OSError):
        return False


def test_client_without_the_key_cannot_join(shared: Sandbox) -> None:
    code = """if True:
        import logging, sys
        from distributed import Client
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        for address in (sys.argv[1], sys.argv[1].replace("tls", "tcp")):
            try:
                Client(address, timeout=2)
            except (OSError, TypeError, ValueError) as error:
                print(type(error).__name__)
    """
    assert len(shared.python("-c", code, shared.status()["address"]).stdout.splitlines()) == 2


def test_key_is_of_one_session_and_private(sandbox: Sandbox) -> None:
    keys = []
    for _ in range(2):
        sandbox.start()
        (key,) = (sandbox.state() / "tls").iterdir()
        assert key.stat().st_mode & 0o777 == 0o600
        keys.append(key.read_bytes())
        sandbox.lc("session", "stop")
    assert keys[0] != keys[1]


def test_no_secret_on_a_command_line_or_in_an_environment(shared: Sandbox) -> None:
    lines = (shared.state() / "tls" / "session.pem").read_text().splitlines()
    secrets = [line for line in lines if not line.startswith("-----")]
    for process in shared.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # one that was only asked something
            shown = " ".join([*process.cmdline(), *process.environ().values()])
            assert not any(secret in shown for secret in secrets)


def test_settings_of_the_first_caller_do_not_leak(sandbox: Sandbox) -> None:
    theirs = sandbox.home / ".config" / "dask"
    theirs.mkdir(parents=True)
    (theirs / "x.yaml").write_text(_POISON)
    sandbox.lc("session", "start", env=_VARIABLES)
    assert all(
        (address, len(ports)) == (_LOOPBACK, 1)
        for ports in (_listeners(sandbox)[part] for part in ("scheduler", "worker"))
        for address, _ in ports
    )
    assert sandbox.status()["workers"][0]["cpus"] < 1234
    plain = {"HOME": str(sandbox.base / "tmp")}
    sandbox.lc("exec", "--", "true", env=plain)
    ours = str(sandbox.state() / "engine.json")
    told = sandbox.python("-c", _ASK_FOR_SETTINGS, ours, env=plain).stdout
    expected, answers = json.loads(told)
    for config, variables, _ in answers:
        assert config == expected
        assert variables == ["DASK_CONFIG"]
    assert [seen for *_, seen in answers] == [
        [0, None, None, None, None, None, 1],
        [None, None, None, None, None, 0.8, 1],
    ]


def test_settings_of_a_caller_do_not_keep_it_from_the_session(sandbox: Sandbox) -> None:
    theirs = sandbox.home / ".config" / "dask"
    theirs.mkdir(parents=True)
    (theirs / "x.yaml").write_text(_POISON)
    result = sandbox.lc("exec", "--", "sh", "-c", "echo $DASK_TEMPORARY_DIRECTORY", env=_VARIABLES)
    assert result.stdout == "/nonexistent\n"


def test_first_callers_directory_is_not_where_programs_import_from(sandbox: Sandbox) -> None:
    for name in ("distributed", "lightcone", "json", "tornado"):
        (sandbox.project / f"{name}.py").write_text("raise SystemExit('imported from the project')")
    code = "import os, sys; os.chdir(sys.argv.pop()); from lightcone.cli.main import main; main()"
    subprocess.run(
        [sys.executable, "-P", "-c", code, "session", "start", str(sandbox.project)],
        cwd="/",
        env=sandbox.env,
        check=True,
        timeout=90,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for path in sandbox.project.glob("*.py"):
        path.unlink()
    assert sandbox.status()["state"] == "alive"


def test_terminal_server_is_our_own(sandbox: Sandbox) -> None:
    """The user's own server and configuration are neither used nor seen."""
    (sandbox.home / ".tmux.conf").write_text(f"run-shell 'touch {sandbox.base}/theirs'\n")
    own = str(sandbox.base / "tmp" / "own")
    subprocess.run(
        ["tmux", "-f", "/dev/null", "-S", own, "new-session", "-d", "-s", "mine", "cat"],
        env=sandbox.env,
        check=True,
    )
    try:
        sandbox.lc("session", "start", env={"TMUX": f"{own},1,0", "TMUX_PANE": "%0"})
        listed = subprocess.run(
            ["tmux", "-S", own, "list-sessions", "-F", "#{session_name} #{session_windows}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert listed.stdout == "mine 1\n"
        sandbox.lc("session", "stop")
    finally:
        subprocess.run(["tmux", "-S", own, "kill-server"], check=True)
        os.unlink(own)
    assert not (sandbox.base / "theirs").exists()
