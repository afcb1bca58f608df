"""What the scheduler keeps of runs and of those who want them, in a scheduler of a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from distributed import Client, Scheduler

from lightcone.cluster.caller import Caller
from lightcone.cluster.messages import unpack
from lightcone.cluster.runs import Runs

_Test = Callable[[Scheduler, Runs], Coroutine[Any, Any, None]]
_RUN = "0123456789ab"
_TOLD = {"name": "lc run, pid 1", "label": None, "pid": 1, "tells": True}


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
