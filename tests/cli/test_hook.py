"""``lc hook``: what an agent's hooks call, with everything that an agent may and may not say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lightcone
from lightcone.cli import hook_fast
from tests.helpers import Sandbox, filled_pipe, wait_until

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ("session-start", "session-end")
ID = "0b9c2d4e-1f3a-4c5d-8e6f-7a8b9c0d1e2f"
LEASE = f"claude-{ID}"


def _input(event: str, directory: Path | str, **more: object) -> bytes:
    """What an agent sends with an event."""
    told = {
        "session_id": ID,
        "transcript_path": "/home/ada/.claude/projects/p/t.jsonl",
        "cwd": str(directory),
        "hook_event_name": event,
        **more,
    }
    return json.dumps(told).encode()


def _call(
    box: Sandbox, event: str, given: bytes, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    """Call a hook, which has to be quiet and succeed."""
    with filled_pipe(given) as stdin:
        result = subprocess.run(
            [sys.executable, "-m", "lightcone", "hook", event],
            stdin=stdin,
            cwd=cwd or box.project,
            env={**box.env, **env},
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    return result


def _working(box: Sandbox) -> bool:
    """Whether a hook, or what it has left behind to do the rest, is still there."""
    return any(" hook session-" in line for line in box.describe())


class _Session:
    """Something that answers on a control socket, and remembers what it was asked."""

    def __init__(self, box: Sandbox, key: str, *, silent: bool = False) -> None:
        self.path = box.runtime / key / "control"
        self.path.parent.mkdir(mode=0o700)
        self.asked: list[object] = []
        self._silent = silent
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        held = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                held.append(connection)
                line = connection.makefile("rb").readline()
                if line:
                    self.asked.append(json.loads(line))
                if not self._silent:
                    connection.sendall(b"{}\n")
                    held.pop().close()
        for connection in held:
            connection.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(timeout=30)
        self.path.unlink()


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[_Session]:
    """A session that releases leases, or says that it does."""
    session = _Session(sandbox, "0123abcd")
    yield session
    session.close()


@pytest.mark.parametrize("source", ["startup", "resume", "clear", "compact", "fork"])
def test_conversation_that_begins_or_goes_on_gets_the_name_of_its_lease(
    sandbox: Sandbox, source: str
) -> None:
    told = _input("SessionStart", sandbox.project, source=source)
    file = sandbox.base / "env file"
    _call(sandbox, "session-start", told, CLAUDE_ENV_FILE=str(file))
    assert file.read_text() == f"export LIGHTCONE_LEASE={LEASE}\n"


@pytest.mark.parametrize("before", ["export A=1\n", "export A=1"])
def test_what_others_tell_the_conversation_is_kept(sandbox: Sandbox, before: str) -> None:
    file = sandbox.base / "env"
    file.write_text(before)
    told = _input("SessionStart", sandbox.project, source="startup")
    _call(sandbox, "session-start", told, CLAUDE_ENV_FILE=str(file))
    assert file.read_text() == f"export A=1\nexport LIGHTCONE_LEASE={LEASE}\n"
    shown = subprocess.run(
        ["sh", "-c", '. "$0"; echo "$A $LIGHTCONE_LEASE"', str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"1 {LEASE}\n"


def test_start_without_a_file_to_write_to_does_nothing(sandbox: Sandbox) -> None:
    told = _input("SessionStart", sandbox.project, source="startup")
    fifo = sandbox.base / "fifo"
    os.mkfifo(fifo)
    for path in ("", str(sandbox.base), str(fifo), str(sandbox.base / "no" / "such"), "/dev/full"):
        _call(sandbox, "session-start", told, CLAUDE_ENV_FILE=path)
    _call(sandbox, "session-start", told)
    assert sorted(path.name for path in sandbox.base.iterdir() if path.is_file()) == []


@pytest.mark.parametrize("reason", ["logout", "prompt_input_exit", "other"])
def test_end_releases_the_lease(sandbox: Sandbox, session: _Session, reason: str) -> None:
    _call(sandbox, "session-end", _input("SessionEnd", sandbox.project, reason=reason))
    wait_until(lambda: session.asked, "the lease is released")
    wait_until(lambda: not _working(sandbox), "nothing is left of the hook")
    assert session.asked == [{"op": "release", "lease": LEASE}]


@pytest.mark.parametrize("told", [{"reason": "clear"}, {"reason": "resume"}, {"reason": 1}, {}])
def test_conversation_that_goes_on_keeps_its_lease(
    sandbox: Sandbox, session: _Session, told: dict[str, object]
) -> None:
    _call(sandbox, "session-end", _input("SessionEnd", sandbox.project, **told))
    wait_until(lambda: not _working(sandbox), "nothing is left of the hook")
    assert session.asked == []


@pytest.mark.parametrize("directory", ["/", "/no/such/directory", "", "nul\0", "\ud800", 7, None])
def test_end_outside_any_project_releases_too(
    sandbox: Sandbox, session: _Session, directory: object
) -> None:
    other = _Session(sandbox, "89ab4567")
    try:
        told = {"session_id": ID, "reason": "logout", "cwd": directory}
        _call(sandbox, "session-end", json.dumps(told).encode(), cwd=Path("/"))
        wait_until(lambda: session.asked and other.asked, "the lease is released everywhere")
        wait_until(lambda: not _working(sandbox), "nothing is left of the hook")
        assert session.asked == other.asked == [{"op": "release", "lease": LEASE}]
    finally:
        other.close()


def test_end_does_not_wait_for_a_session_that_is_silent(sandbox: Sandbox) -> None:
    session = _Session(sandbox, "0123abcd", silent=True)
    try:
        # Returns although the pipes for its output are read to their end.
        _call(sandbox, "session-end", _input("SessionEnd", sandbox.project, reason="other"))
        wait_until(lambda: session.asked, "the lease is released")
    finally:
        session.close()
    wait_until(lambda: not _working(sandbox), "nothing is left of the hook")


def test_end_where_there_is_nothing(sandbox: Sandbox) -> None:
    told = _input("SessionEnd", sandbox.base, reason="other")
    nowhere = str(sandbox.base / "none")
    _call(sandbox, "session-end", told, LIGHTCONE_RUNTIME_DIR=nowhere, PATH="", HOME=nowhere)
    (sandbox.project / "lightcone.toml").write_text("[nonsense]")
    _call(sandbox, "session-end", _input("SessionEnd", sandbox.project, reason="other"))
    wait_until(lambda: not _working(sandbox), "nothing is left of the hook")
    assert not (sandbox.base / "none").exists()


def test_session_in_which_the_conversation_has_no_lease_goes_on(shared: Sandbox) -> None:
    before = shared.programs()
    _call(shared, "session-end", _input("SessionEnd", shared.project, reason="other"))
    wait_until(lambda: not _working(shared), "nothing is left of the hook")
    assert shared.programs() == before
    assert shared.status()["state"] == "alive"


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\n",
        b"{",
        b'{"session_id": "a", "reason": "other"',
        b"[]",
        b"null",
        b'"text"',
        b"NaN",
        b"\xff\xfe\x00",
        b"\x00" * 100,
        b"[" * 60000,
        b'{"a":' * 10000,
        b"9" * 60000,
        b"{}" + b" " * 1000000,
        b'{"session_id": "a", "reason": "other", "more": "' + b"x" * 1000000 + b'"}',
        b'{"session_id": null, "reason": "other"}',
        b'{"session_id": "", "reason": "other"}',
        b'{"session_id": ["a"], "reason": "other"}',
        b'{"reason": "other"}',
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_input_that_says_nothing(sandbox: Sandbox, event: str, given: bytes) -> None:
    file = sandbox.base / "env"
    # More than a pipe holds comes from a file: nobody reads it to its end.
    source = sandbox.base / "input"
    source.write_bytes(given)
    with open(source, "rb") as stdin:
        result = subprocess.run(
            [sys.executable, "-m", "lightcone", "hook", event],
            stdin=stdin,
            env={**sandbox.env, "CLAUDE_ENV_FILE": str(file)},
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert not file.exists()
    assert not _working(sandbox)


@pytest.mark.parametrize("event", EVENTS)
def test_input_that_is_not_there(sandbox: Sandbox, event: str) -> None:
    program = shlex.join([sys.executable, "-m", "lightcone", "hook", event])
    for line in (f"{program} <&-", f"{program} <&- >&- 2>&-", f"{program} </dev/null"):
        result = subprocess.run(
            ["sh", "-c", line], env=sandbox.env, capture_output=True, timeout=60, check=False
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b""), line


def test_input_that_nobody_closes(sandbox: Sandbox) -> None:
    file = sandbox.base / "env"
    for told in (b"", _input("SessionStart", sandbox.project, source="startup")):
        assert not file.exists()
        with filled_pipe(told, closed=False) as stdin:
            env = {"CLAUDE_ENV_FILE": str(file)}
            program = sandbox.popen("hook", "session-start", stdin=stdin, env=env)
            assert program.wait(timeout=60) == 0
    assert file.read_text() == f"export LIGHTCONE_LEASE={LEASE}\n"


@given(st.binary(max_size=2000))
def test_reading_survives_any_bytes(data: bytes) -> None:
    assert isinstance(_read(data), dict)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=20), _VALUES, max_size=6))
def test_reading_finds_any_object(told: dict[str, object]) -> None:
    data = json.dumps(told).encode()
    assert _read(data) == told
    assert _read(data + b" " * (hook_fast._INPUT_BYTES + 1)) == {}


def _read(data: bytes) -> object:
    read, write = os.pipe()
    try:
        writer = threading.Thread(target=_write, args=(write, data))
        writer.start()
        found = hook_fast.read_input(read, 30.0)
    finally:
        os.close(read)
    writer.join()
    return found


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(descriptor, "wb") as file:
        file.write(data)


@given(st.text(), st.text())
def test_name_of_a_lease_is_plain_and_its_own(one: str, other: str) -> None:
    names = [hook_fast.lease_name(each) for each in (one, other)]
    assert names[0] == hook_fast.lease_name(one)
    for each, name in zip((one, other), names, strict=True):
        assert (name is None) == (each == "")
        assert name is None or re.fullmatch(r"claude-[A-Za-z0-9_-]{1,64}", name)
    assert (names[0] == names[1]) == (one == other)


def test_call_needs_the_standard_library_alone(sandbox: Sandbox) -> None:
    code = (
        "import json, sys\n"
        "from lightcone.__main__ import main\n"
        "sys.argv[1:] = ['hook', 'session-end']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "ours = [name for name in sys.modules if name.partition('.')[0] == 'lightcone']\n"
        "foreign = [each for each in sys.modules.values()"
        " if 'site-packages' in (getattr(each, '__file__', None) or '')]\n"
        "print(sorted(ours), [each.__name__ for each in foreign if '_' not in each.__name__])\n"
    )
    shown = sandbox.python("-c", code).stdout
    ours = ["", ".__main__", ".cli", ".cli.hook_fast", ".errors", ".project", ".project.variables"]
    assert shown == f"{[f'lightcone{name}' for name in ours]} []\n"


def test_verb_among_the_others(sandbox: Sandbox) -> None:
    file = sandbox.base / "env"
    code = "from lightcone.cli.main import main; main()"
    with filled_pipe(_input("SessionStart", sandbox.project, source="startup")) as stdin:
        result = subprocess.run(
            [sys.executable, "-c", code, "hook", "session-start"],
            stdin=stdin,
            env={**sandbox.env, "CLAUDE_ENV_FILE": str(file)},
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert LEASE in file.read_text()
    assert "session-end" in sandbox.lc("hook", "--help").stdout
    sandbox.lc("hook", "no-such-event", check=2)


def test_plugin_and_init_say_the_same() -> None:
    plugin = json.loads((ROOT / "hooks/.claude-plugin/plugin.json").read_text())
    assert plugin["version"] == lightcone.__version__
    hooks = (ROOT / "hooks" / plugin["hooks"]).read_text()
    assert hooks == (ROOT / "lightcone/scaffold/hooks.json").read_text()
    events = json.loads(hooks)["hooks"]
    assert list(events) == ["SessionStart", "SessionEnd"]
    assert events["SessionEnd"][0]["matcher"].split("|") == ["logout", "prompt_input_exit", "other"]


@pytest.mark.parametrize("there", [True, False], ids=["lc in PATH", "no lc"])
def test_what_the_plugin_says_can_be_run(sandbox: Sandbox, there: bool) -> None:
    """With a shell, as Claude Code does; where there is no lc, it is as if there were no hook."""
    places = sandbox.base / "bin"
    places.mkdir()
    if there:
        script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lightcone "$@"\n'
        (places / "lc").write_text(script)
        (places / "lc").chmod(0o755)
    file = sandbox.base / "env"
    events = json.loads((ROOT / "hooks/hooks.json").read_text())["hooks"]
    for event, groups in events.items():
        given = _input(event, sandbox.project, source="startup", reason="other")
        with filled_pipe(given) as stdin:
            result = subprocess.run(
                ["/bin/sh", "-c", groups[0]["hooks"][0]["command"]],
                stdin=stdin,
                cwd=sandbox.project,
                env={**sandbox.env, "PATH": str(places), "CLAUDE_ENV_FILE": str(file)},
                capture_output=True,
                timeout=60,
                check=False,
            )
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b""), event
    assert file.exists() == there
    wait_until(lambda: not _working(sandbox), "nothing is left of the hook")
