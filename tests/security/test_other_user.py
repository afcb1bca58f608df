"""Another user of the machine, with a living session: he gets nothing of it, and harms nothing."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.helpers import is_alive, wait_until
from tests.security.interpreter import Interpreter
from tests.security.users import Owned, Stranger, User, as_user

_CANARY = "canary-of-the-caller-5f2c9a"


@pytest.fixture(scope="module", params=["root", "an unprivileged user"])
def victim(request: pytest.FixtureRequest, stranger: Stranger) -> Iterator[Owned]:
    """The owner of a session that is running a command; it has to survive every attack."""
    as_root = request.param == "root"
    root = User(0, Interpreter())
    box = Owned(root if as_root else request.getfixturevalue("unprivileged"))
    command: subprocess.Popen[bytes] | None = None
    try:
        box.env["CALLERS_CANARY"] = _CANARY
        before = box.start()["address"]
        said = "echo begun; exec sleep 1000"
        command = box.popen("exec", "--", "sh", "-c", said, stderr=subprocess.STDOUT)
        assert command.stdout is not None
        assert command.stdout.readline() == b"begun\n"
        yield box
        assert box.status()["address"] == before
        assert command.poll() is None
    finally:
        if command is not None:
            command.terminate()
            command.wait(timeout=60)
        box.close()


@pytest.fixture(scope="module")
def facts(victim: Owned) -> dict[str, Any]:
    """All that there is to know of the session."""
    return victim.facts()


@pytest.fixture
def owner(victim: Owned) -> Iterator[Stranger]:
    """The session's own user, for whom what follows is no attack, to see that it would work."""
    user = Stranger(victim.user)
    yield user
    user.close()


def test_engine_speaks_to_no_stranger(stranger: Stranger, facts: dict[str, Any]) -> None:
    ports = facts["ports"]
    assert len(ports) == 2
    assert stranger.attack("engine", {"ports": ports}) == []
    assert stranger.attack("engine", {"ports": ports, "key": facts["key"]}) == []


def test_engine_speaks_only_to_who_has_the_key(owner: Stranger, facts: dict[str, Any]) -> None:
    """A program of the same user without the key is refused too."""
    ports = facts["ports"]
    assert owner.attack("engine", {"ports": ports}) == []
    assert len(owner.attack("engine", {"ports": ports, "key": facts["key"]})) == 2


def test_no_page_is_served_to_anybody(
    stranger: Stranger, owner: Stranger, facts: dict[str, Any]
) -> None:
    assert stranger.attack("web", facts) == []
    assert owner.attack("web", facts) == []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            assert stranger.attack("web", {"ports": [server.server_port]})
        finally:
            server.shutdown()


class _Page(BaseHTTPRequestHandler):
    """A page for who asks in the clear."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of who asks otherwise."""


def test_sockets(stranger: Stranger, owner: Stranger, facts: dict[str, Any]) -> None:
    assert stranger.attack("sockets", facts) == []
    assert len(owner.attack("sockets", {**facts, "harmless": True})) >= 4


def test_files_are_not_read(stranger: Stranger, owner: Stranger, facts: dict[str, Any]) -> None:
    names = {os.path.basename(path) for path in facts["files"]}
    wanted = {"session.json", "session.pem", "scheduler.log", "worker.log", "spill", "owner.lock"}
    assert names >= wanted
    assert stranger.attack("read", facts) == []
    plain = [path for path in facts["files"] if path not in facts["sockets"]]
    assert len(owner.attack("read", {"files": plain})) == len(plain)


def test_files_are_not_written(stranger: Stranger, facts: dict[str, Any]) -> None:
    assert stranger.attack("write", facts) == []
    own = stranger.home / "own"
    own.touch()
    os.chown(own, stranger.uid, stranger.uid)
    assert len(stranger.attack("write", {"files": [str(own)]})) >= 3


def test_processes(stranger: Stranger, owner: Stranger, facts: dict[str, Any]) -> None:
    assert len(facts["pids"]) >= 8
    assert stranger.attack("processes", facts) == []
    assert len(owner.attack("processes", {**facts, "harmless": True})) >= 4 * len(facts["pids"])
    assert all(map(is_alive, facts["pids"]))


def test_command_lines_tell_no_secret(
    stranger: Stranger, victim: Owned, facts: dict[str, Any]
) -> None:
    """Neither the key, nor what the session was told with it, nor the caller's environment."""
    key = (victim.state() / "tls" / "session.pem").read_text().splitlines()
    secrets = [_CANARY, *(line for line in key if not line.startswith("-----"))]
    holder = subprocess.Popen(
        ["sh", "-c", "read end; : not-a-secret"], stdin=subprocess.PIPE, **victim.owner
    )
    try:
        wait_until(
            lambda: stranger.attack("command_lines", {"secrets": ["not-a-secret"]}),
            "the attack sees command lines at all",
        )
        assert stranger.attack("command_lines", {"secrets": secrets}) == []
    finally:
        holder.communicate(b"\n", timeout=60)


def test_what_can_be_read_holds_no_secret(
    stranger: Stranger, owner: Stranger, victim: Owned
) -> None:
    pem = victim.state() / "tls" / "session.pem"
    facts = {
        "places": [str(victim.base)],
        "secrets": [_CANARY, pem.read_text().splitlines()[1]],
    }
    assert stranger.attack("search", facts) == []
    assert owner.attack("search", facts) == [str(pem)]


@pytest.mark.parametrize("verb", ["status", "stop", "attach", "logs", "start"])
def test_lc_itself_is_no_way_in(victim: Owned, stranger: Stranger, verb: str) -> None:
    """In the project, and told where the session has its files."""
    result = subprocess.run(
        [stranger.python.program, "-P", "-m", "lightcone", "session", verb],
        cwd=victim.project,
        env={**victim.env, **stranger.python.env, "HOME": str(stranger.home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **as_user(stranger.uid),
    )
    assert result.returncode == 3
    assert "belongs to another user: set LIGHTCONE_" in result.stderr
