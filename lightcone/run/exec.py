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
    context: Context, connection: Connection, argv: tuple[str, ...], requested: Resources
) -> int:
    """Run ``argv`` on the cluster with live output, and return its exit code.

    The exit code is 128 + N where signal N ended it. An interrupt asks the command to end and waits
    for that, a second one kills it; the exit code is then 130.

    Raises:
        UsageError: where no worker has the requested resources.
        SessionError: where the cluster is lost on the way.
    """
    share = share_for(requested, connection.resources, clamp=False)
    if isinstance(share, Refused):
        raise UsageError(f"The command cannot run: {share.why}.")
    client = RunClient(connection.transport, "lc exec", context.settings.grace)
    interrupts, started = 0, False
    received = confirmed = 0
    with client.open():
        request = ExecRequest(client.name, argv, share.cpus, requested.gpus, context.settings.grace)
        key = client.key("exec")
        client.submit(_EXECUTE, request, key, share.resources, priority=_AHEAD_OF_RECIPES)
        while True:
            try:
                event, value = client.next()
            except Empty:
                return INTERRUPTED
            if event == "interrupt":
                interrupts = value
            elif event == "begun":
                if not (started or value):
                    client.cancel([key])
            elif event == "lost" and interrupts:
                return INTERRUPTED
            elif event in ("end", "lost"):
                reason = value[1] if event == "lost" else value or "its session ended"
                raise SessionError(f"The cluster lost the command ({reason}): run it again.")
            for message in value if event == "messages" else ():
                if message["event"] == "start":
                    started = True
                elif message["event"] == "data":
                    stream = sys.stdout if message["stream"] == "out" else sys.stderr
                    stream.buffer.write(message["data"])
                    stream.buffer.flush()
                    received += len(message["data"])
                    if received - confirmed >= WINDOW // 4:
                        confirmed = received
                        client.acknowledge(received)
                elif message["event"] == "done":
                    if message.get("error"):
                        print(f"lc: {message['error']}", file=sys.stderr)
                    code = int(message["code"])
                    if interrupts:
                        return INTERRUPTED
                    if message.get("unwanted"):
                        raise SessionError("The command was ended with its worker: run it again.")
                    return 128 - code if code < 0 else code
