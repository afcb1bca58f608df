"""The client of a control socket: who may answer, and replies that cannot be read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightcone.wire.control_client import ask_session, hold_session
from tests.helpers import Sandbox, wait_until

_NOBODY = 65534


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lc-", dir="/tmp") as directory:
        yield Path(directory) / "control"


@contextlib.contextmanager
def _answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """A listener that gives one caller an answer of its own."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(10)


def test_nobody_there(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ask_session(path, "describe")


def test_nobody_there_any_more(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        ask_session(path, "describe")


@pytest.mark.parametrize("answer", [b"", b"{", b"no json\n", b"[1]\n", b"\xff\xfe\n"])
def test_answer_that_is_none(path: Path, answer: bytes) -> None:
    with (
        _answering(path, lambda connection: connection.sendall(answer)),
        pytest.raises(ConnectionError),
    ):
        ask_session(path, "describe")


def test_answer_in_pieces(path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        for byte in json.dumps({"key": "a" * 1000}).encode() + b"\n":
            connection.send(bytes([byte]))

    with _answering(path, answer):
        assert ask_session(path, "describe") == {"key": "a" * 1000}


def _wait(event: threading.Event) -> None:
    event.wait(10)


def test_no_answer_in_time(path: Path) -> None:
    done = threading.Event()
    with _answering(path, lambda _: _wait(done)):
        with pytest.raises(TimeoutError):
            ask_session(path, "describe", 0.1)
        done.set()


@contextlib.contextmanager
def _besieged(path: Path) -> Iterator[tuple[socket.socket, int]]:
    """A listener that can take no more callers before it accepts some, and how many it has."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(path))
                waiting += 1
        yield listener, waiting


_TURNED_AWAY = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is told why")


@_TURNED_AWAY
def test_one_too_many_waits_until_there_is_room(path: Path) -> None:
    with _besieged(path) as (listener, waiting):

        def serve() -> None:
            for _ in range(waiting):
                listener.accept()[0].close()
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b'{"key": "x"}\n')

        listener.settimeout(10)
        thread = threading.Timer(0.2, serve)
        thread.start()
        try:
            assert ask_session(path, "describe", 10) == {"key": "x"}
        finally:
            thread.join()


@_TURNED_AWAY
def test_one_too_many_waits_no_longer_than_for_an_answer(path: Path) -> None:
    with _besieged(path), pytest.raises(TimeoutError):
        ask_session(path, "describe", 0.1)


def test_answer_of_another_user_is_not_listened_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with (
        _answering(path, lambda connection: connection.sendall(b"{}\n")),
        pytest.raises(PermissionError, match="another user"),
    ):
        ask_session(path, "describe")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_session_of_another_user_in_our_place_is_not_used(sandbox: Sandbox) -> None:
    """Somebody else made our directory of sockets first, and answers there as our session would."""
    told = sandbox.start()
    record = json.loads((sandbox.state() / "session.json").read_bytes())
    sandbox.lc("session", "stop")
    place = sandbox.runtime / told["key"]
    for directory in (sandbox.base, sandbox.runtime, place):
        directory.chmod(0o777)
    impostor = subprocess.Popen(
        [sys.executable, "-c", _IMPOSTOR, str(place / "control"), json.dumps(record)]
    )
    try:
        wait_until((place / "control").exists, "the impostor listens")
        assert sandbox.status()["state"] == "dead"
        os.chown(sandbox.runtime, _NOBODY, _NOBODY)
        for verb in (("session", "start"), ("exec", "--", "true")):
            result = sandbox.lc(*verb, check=None)
            assert result.returncode in (3, 125)
            assert "belongs to another user" in result.stderr
    finally:
        impostor.kill()
        impostor.wait()
        os.chown(sandbox.runtime, os.getuid(), os.getgid())


_IMPOSTOR = f"""\
import os, socket, sys
os.setuid({_NOBODY})
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(sys.argv[2].encode() + b"\\n")
"""


def test_hold_ends_with_the_other_side(path: Path) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b'{"key": "x"}\n{"ended": "for a reason"}\n')

    with _answering(path, answer), hold_session(path) as hold:
        assert hold.wait_for_end(10) == "for a reason"
