"""One command on the cluster, as if it had been run here."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lightcone.analysis.output import Resources
from lightcone.cluster.commands import KEY_PREFIX, Cause, current_task
from lightcone.context import Context
from lightcone.errors import SessionError, UsageError
from lightcone.run import environment
from lightcone.run.order import ExecOrder
from lightcone.run.share import Refused, fit
from lightcone.session.client import Connection

__all__ = ["execute", "run_command"]

_AHEAD_OF_RECIPES = 100
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_INTERRUPTED = 130
_CALL_TIMEOUT = 10.0


def execute(order: ExecOrder) -> None:
    """On a worker: run the command of ``order`` and tell its caller what it prints."""
    with current_task() as task:
        told: dict[str, Any]
        try:
            run = task.describe_run(order.run)
            ended = task.execute(
                order.argv,
                environment=environment.for_command(run, order.cpus, None),
                directory=Path(str(run["directory"])),
                umask=int(run["umask"]),
                grace=order.grace,
                sink=lambda name, data: task.emit(
                    order.topic, {"event": "data", "key": task.key, "stream": name, "data": data}
                ),
                merge=False,
            )
            told = {"code": ended.code, "unwanted": ended.cause is Cause.UNWANTED}
        except FileNotFoundError as error:
            told = {"code": _NOT_FOUND, "error": f"{error.strerror}: {error.filename}"}
        except OSError as error:
            told = {"code": _NOT_EXECUTABLE, "error": f"{error.strerror}: {error.filename}"}
        task.emit(order.topic, {"event": "done", "key": task.key, **told})


def run_command(
    context: Context, connection: Connection, argv: tuple[str, ...], asked: Resources
) -> int:
    """Run ``argv`` on the cluster, its output live, and return its exit code, 128 + N for signal N.

    An interrupt asks it to end, a second one ends it; the exit code is then 130.

    Raises:
        UsageError: where no worker has what is asked for.
        SessionError: where the cluster is lost on the way.
    """
    given = fit(asked, connection.resources, clamp=False)
    if isinstance(given, Refused):
        raise UsageError(f"The command cannot run: {given.why}.")
    client, run = connection.client, secrets.token_hex(6)
    events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    told = environment.caller() | {"name": f"lc exec, pid {os.getpid()}", "pid": os.getpid()}

    def call(operation: str, **arguments: Any) -> None:
        client.sync(
            getattr(client.scheduler, operation), callback_timeout=_CALL_TIMEOUT, **arguments
        )

    call("lightcone_begin", run=run, client=client.id, description=told)
    client.subscribe_topic(client.id, lambda event: events.put(("message", event[1])))
    if connection.hold is not None:
        hold = connection.hold
        threading.Thread(
            target=lambda: events.put(("end", hold.wait_for_end())), daemon=True
        ).start()
    order = ExecOrder(run, client.id, argv, given.cpus, context.settings.grace)
    future = client.submit(
        execute,
        order,
        key=f"{KEY_PREFIX}exec-{run}",
        pure=False,
        retries=0,
        resources=given.resources,
        priority=_AHEAD_OF_RECIPES,
    )
    future.add_done_callback(lambda ended: events.put(("future", ended.status)))
    interrupts = 0
    with _interrupts_to(events):
        while True:
            what, value = events.get()
            if what == "interrupt":
                interrupts += 1
                with contextlib.suppress(OSError, TimeoutError):
                    call("lightcone_interrupt", run=run, kill=interrupts > 1)
                future.cancel()
            elif what == "end" or (what == "future" and value != "finished" and not interrupts):
                raise SessionError(
                    f"The cluster lost the command{f' ({value})' if value else ''}: run it again."
                )
            elif what == "future" and interrupts:
                return _INTERRUPTED
            elif what == "message" and isinstance(value, dict):
                if value.get("event") == "data":
                    stream = sys.stdout if value["stream"] == "out" else sys.stderr
                    stream.buffer.write(value["data"])
                    stream.buffer.flush()
                elif value.get("event") == "done":
                    if value.get("error"):
                        print(f"lc: {value['error']}", file=sys.stderr)
                    code = int(value["code"])
                    return _INTERRUPTED if interrupts else 128 - code if code < 0 else code


@contextlib.contextmanager
def _interrupts_to(events: SimpleQueue[tuple[str, Any]]):  # type: ignore[no-untyped-def]
    """Signals that ask this process to end become events."""
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(name, lambda *_: events.put(("interrupt", None))) for name in asked]
    try:
        yield
    finally:
        for name, handler in zip(asked, before, strict=True):
            signal.signal(name, handler)
