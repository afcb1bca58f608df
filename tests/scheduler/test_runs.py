"""What the scheduler keeps of runs and of those who want them, in a scheduler of a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Scheduler

from lightcone.scheduler.caller import Caller, serve_caller
from lightcone.scheduler.runs import Runs
from lightcone.wire.protocol import HEADER_SIZE, frame, frame_length, pack, topic_of, unpack

_Test = Callable[[Scheduler, Runs], Coroutine[Any, Any, None]]
_RUN = "0123456789ab"
_TOLD = {"name": "lc run, pid 1", "label": None, "pid": 1, "reports_progress": True}


def _with_scheduler(test: _Test) -> None:
    async def run() -> None:
        async with Scheduler(protocol="inproc", dashboard_address="127.0.0.1:0") as scheduler:
            scheduler.http_server.stop()
            runs = Runs()
            scheduler.add_plugin(runs)
            await runs.start(scheduler)
            await asyncio.wait_for(test(scheduler, runs), 30)

    asyncio.run(run())


def _client(scheduler: Scheduler) -> Client:
    return Client(scheduler.address, asynchronous=True, set_as_default=False)


def test_what_is_said_to_a_run_the_moment_it_is_known_is_heard() -> None:
    async def test(scheduler: Scheduler, runs: Runs) -> None:
        async def begin(**told: Any) -> None:
            await runs.begin(**told)
            assert runs.cancel(_RUN)

        scheduler.handlers["lightcone_begin"] = begin
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        async with _client(scheduler) as client:
            await Caller(client, heard.put_nowait).begin(_RUN, _TOLD)
            assert unpack(await asyncio.wait_for(heard.get(), 10)) == [{"event": "cancel"}]

    _with_scheduler(test)


def test_nothing_is_kept_of_what_is_said_to_a_run() -> None:
    async def test(scheduler: Scheduler, runs: Runs) -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        async with _client(scheduler) as client:
            await Caller(client, heard.put_nowait).begin(_RUN, _TOLD)
            scheduler.log_event(topic_of(_RUN), b"word")
            assert await asyncio.wait_for(heard.get(), 10) == b"word"
            assert scheduler.get_events(topic_of(_RUN)) == ()

    _with_scheduler(test)


@pytest.mark.parametrize("begins", [True, False], ids=["with a run", "without"])
def test_nothing_is_left_of_a_client_that_is_gone(
    begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightcone.scheduler.runs._FORGET_DELAY", 0.1)

    async def test(scheduler: Scheduler, runs: Runs) -> None:
        topics = scheduler._broker._topics
        async with _client(scheduler) as client:
            if begins:
                await Caller(client, lambda _: None).begin(_RUN, _TOLD)
            while client.id not in topics["print"].subscribers:
                await asyncio.sleep(0.01)
        while any(client.id in topic.subscribers for topic in topics.values()):
            await asyncio.sleep(0.01)
        assert not {client.id, topic_of(_RUN)} & topics.keys()
        assert not runs.runs

    _with_scheduler(test)


def test_a_caller_who_does_not_read_is_spared_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightcone.scheduler.caller._UNREAD_LIMIT", 4 << 20)
    pieces = 50

    async def test(scheduler: Scheduler, runs: Runs) -> None:
        left = asyncio.Event()

        async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve_caller(scheduler.address, reader, writer)
            writer.close()
            left.set()

        async with await asyncio.start_unix_server(serving, tmp_path / "control"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "control")
            begin = {"op": "begin", "run": _RUN, "description": _TOLD}
            writer.write(frame(pack([begin])))
            while _RUN not in runs.runs:
                await asyncio.sleep(0.01)
            for number in range(pieces):
                lines = {"event": "lines", "key": "x", "lines": ["x" * (1 << 20)]}
                scheduler.log_event(topic_of(_RUN), pack([lines]))
                scheduler.log_event(topic_of(_RUN), pack([lines, {"event": "done", "n": number}]))
            shown, done = 0, list[int]()
            while len(done) < pieces:
                piece = await reader.readexactly(
                    frame_length(await reader.readexactly(HEADER_SIZE))
                )
                for message in unpack(piece):
                    shown += message["event"] == "lines"
                    done += [message["n"]] if message["event"] == "done" else []
            assert done == list(range(pieces))
            assert 0 < shown < pieces
            writer.close()
            await writer.wait_closed()
            await left.wait()

    _with_scheduler(test)
