"""One command on the cluster, as if it had been run here."""

from __future__ import annotations

import sys
from queue import Empty

from lightcone.errors import INTERRUPTED, SessionError, UsageError
from lightcone.project.context import Context
from lightcone.run.client import RunClient
from lightcone.run.sharing import Refused, share_for
from lightcone.session.connect import Connection
from lightcone.spec.output import Resources
from lightcone.wire.requests import WINDOW, ExecRequest

__all__ = ["run_command"]

_EXECUTE = "lightcone.worker.exec_task:execute"
_AHEAD_OF_RECIPES = 100


def run_command(
    context: Context, connection: Connection, argv: tuple[str, ...], asked: Resources
) -> int:
    """Run ``argv`` on the cluster, its output live, and return its exit code, 128 + N for signal N.

    An interrupt asks it to end and waits for that, a second one ends it; the exit code is then 130.

    Raises:
        UsageError: where no worker has what is asked for.
        SessionError: where the cluster is lost on the way.
    """
    given = share_for(asked, connection.resources, clamp=False)
    if isinstance(given, Refused):
        raise UsageError(f"The command cannot run: {given.why}.")
    client = RunClient(connection.transport, "lc exec", context.settings.grace)
    interrupts, started = 0, False
    received = confirmed = 0
    with client.open():
        request = ExecRequest(client.name, argv, given.cpus, asked.gpus, context.settings.grace)
        key = client.key("exec")
        client.submit(_EXECUTE, request, key, given.resources, priority=_AHEAD_OF_RECIPES)
        while True:
            try:
                what, value = client.next()
            except Empty:
                return INTERRUPTED
            if what == "interrupt":
                interrupts = value
            elif what == "begun":
                if not (started or value):
                    client.cancel([key])
            elif what == "lost" and interrupts:
                return INTERRUPTED
            elif what in ("end", "lost"):
                reason = value[1] if what == "lost" else value or "its session ended"
                raise SessionError(f"The cluster lost the command ({reason}): run it again.")
            for message in value if what == "messages" else ():
                if message["event"] == "start":
                    started = True
                elif message["event"] == "data":
                    stream = sys.stdout if message["stream"] == "out" else sys.stderr
                    stream.buffer.write(message["data"])
                    stream.buffer.flush()
                    received += len(message["data"])
                    if received - confirmed >= WINDOW // 4:
                        confirmed = received
                        client.received(received)
                elif message["event"] == "done":
                    if message.get("error"):
                        print(f"lc: {message['error']}", file=sys.stderr)
                    code = int(message["code"])
                    if interrupts:
                        return INTERRUPTED
                    if message.get("unwanted"):
                        raise SessionError("The command was ended with its worker: run it again.")
                    return 128 - code if code < 0 else code
