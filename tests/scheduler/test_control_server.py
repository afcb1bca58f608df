"""The server of the control socket, without an engine around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightcone.scheduler.control_server import ControlServer
from lightcone.scheduler.idleness import Leases
from lightcone.wire.protocol import HEADER_SIZE, frame_length, unpack

_Test = Callable[[ControlServer, dict[str, Any]], Coroutine[Any, Any, None]]
_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_PIECE = 1 << 16
_opened: list[asyncio.StreamWriter] = []


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lc-", dir="/tmp") as directory:
        yield Path(directory) / "control"


def _serve(path: Path, test: _Test) -> None:
    async def run() -> None:
        told: dict[str, Any] = {"key": "k", "ready": False, "idle": False}

        async def look() -> dict[str, Any]:
            told["looks"] = told.get("looks", 0) + 1
            return {"look": told["looks"]}

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while piece := await reader.read(_PIECE):
                writer.write(piece)

        cancel = {"night"}.__contains__
        server = ControlServer(path, lambda: told, lambda: None, cancel, Leases(60.0), look, echo)
        await server.start()
        try:
            await asyncio.wait_for(test(server, told), 30)
        finally:
            await server.close()
            while _opened:
                writer = _opened.pop()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    asyncio.run(run())


async def _send(path: Path, line: bytes) -> _Ends:
    reader, writer = await asyncio.open_unix_connection(str(path))
    _opened.append(writer)
    writer.write(line)
    await writer.drain()
    return reader, writer


async def _ask(path: Path, **request: Any) -> _Ends:
    return await _send(path, json.dumps(request).encode() + b"\n")


async def _answer(ends: _Ends) -> Any:
    return json.loads(await ends[0].readline())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_socket_is_private_and_replaces_a_dead_one(path: Path) -> None:
    path.touch()

    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        assert path.stat().st_mode & 0o777 == 0o600
        assert await _answer(await _ask(path, op="describe")) == told

    _serve(path, test)
    assert not path.exists()


@pytest.mark.parametrize("line", [b"\n", b"{\n", b"[]\n", b"\xff\n", b"", b"x" * 200_000])
def test_request_that_is_none_harms_nothing(path: Path, line: bytes) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        _, writer = await _send(path, line)
        writer.close()
        assert await _answer(await _ask(path, op="describe")) == told

    _serve(path, test)


def test_many_may_call_while_it_is_busy(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(120):  # within one turn of the loop
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(path))
            assert await _answer(await _ask(path, op="describe")) == told

    _serve(path, test)


def test_unknown_request_is_answered_with_the_description(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        assert await _answer(await _ask(path, op="of a later version")) == told

    _serve(path, test)


@pytest.mark.parametrize("what", ["ready", "idle"])
def test_wait_is_answered_when_it_is_so(path: Path, what: str) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        waiting = [await _ask(path, op=what) for _ in range(3)]
        answers = [asyncio.ensure_future(_answer(ends)) for ends in waiting]
        server.changed()
        assert await _answer(await _ask(path, op="describe")) == told
        assert not any(answer.done() for answer in answers)
        told[what] = True
        server.changed()
        assert await asyncio.gather(*answers) == [told] * 3

    _serve(path, test)


def test_those_who_wait_for_it_to_be_ready_are_a_use(path: Path) -> None:
    """Or a slow start could end as idle before it was of use to the one who asked for it."""

    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        waiting = [await _ask(path, op=what) for what in ("ready", "ready", "idle")]
        await _until(lambda: server.users == 2)
        waiting[0][1].close()
        await _until(lambda: server.users == 1)
        told["ready"] = True
        server.changed()
        assert await _answer(waiting[1]) == told
        assert server.users == 0

    _serve(path, test)


def test_wait_of_one_who_has_left_is_forgotten(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        before = len(asyncio.all_tasks())
        _, writer = await _ask(path, op="ready")
        await _until(lambda: len(asyncio.all_tasks()) > before)
        writer.close()
        await _until(lambda: len(asyncio.all_tasks()) <= before)

    _serve(path, test)


def test_holders_are_no_use_and_are_told_of_the_end(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        leaving, staying = [await _ask(path, op="hold") for _ in range(2)]
        assert [await _answer(ends) for ends in (leaving, staying)] == [told, told]
        await _until(lambda: len(server._end_listeners) == 2)
        assert server.users == 0
        leaving[1].close()
        await _until(lambda: len(server._end_listeners) == 1)
        server.reason = "a reason"
        await server.close()
        assert await _answer(staying) == {"ended": "a reason"}

    _serve(path, test)


def test_caller_is_a_use_is_served_and_is_told_of_the_end_in_a_message(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        leaving, staying = [await _ask(path, op="call") for _ in range(2)]
        assert [await _answer(ends) for ends in (leaving, staying)] == [told, told]
        assert server.users == 2
        leaving[1].close()
        await _until(lambda: server.users == 1)
        staying[1].write(b"a piece")
        assert await staying[0].readexactly(7) == b"a piece"
        server.reason = "for a reason"
        await server.close()
        head = await staying[0].readexactly(HEADER_SIZE)
        assert unpack(await staying[0].readexactly(frame_length(head))) == [
            {"event": "ended", "reason": "for a reason"}
        ]
        assert await staying[0].read() == b""

    _serve(path, test)


def test_another_user_is_not_heard_even_where_modes_let_him_in(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
        reader, _ = await _ask(path, op="end", reason="for the fun of it")
        with contextlib.suppress(ConnectionResetError):  # what he has said was not read
            assert await reader.read() == b""
        assert server.reason == ""

    _serve(path, test)


def test_reason_is_kept(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        await _answer(await _ask(path, op="reason", reason="stopped by hand"))
        assert server.reason == "stopped by hand"

    _serve(path, test)


def test_who_watches_is_shown_and_nobody_else_costs_anything(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        reader, writer = await _ask(path, op="watch", every_s=0.0)
        assert (await _answer((reader, writer)))["key"] == "k"
        assert [await _answer((reader, writer)) for _ in range(3)] == [
            {"look": number} for number in (1, 2, 3)
        ]
        assert server.users == 0
        writer.close()
        while server._end_listeners:
            await asyncio.sleep(0.01)
        looks = told["looks"]
        for _ in range(3):
            assert (await _answer(await _ask(path, op="describe")))["looks"] == looks

    _serve(path, test)


def test_who_watches_is_told_of_the_end(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        ends = await _ask(path, op="watch", every_s="often")
        await _answer(ends)
        await _answer(ends)
        server.reason = "for a reason"
        await server.close()
        assert await _answer(ends) == {"ended": "for a reason"}

    _serve(path, test)


def test_a_run_is_cancelled_by_its_name(path: Path) -> None:
    async def test(server: ControlServer, told: dict[str, Any]) -> None:
        for name, known in (("night", True), ("day", False)):
            assert (await _answer(await _ask(path, op="cancel", run=name)))["cancelled"] is known

    _serve(path, test)
