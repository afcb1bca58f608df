"""An external cluster: checked, then given the plugins that sessions load at start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lightcone import __version__
from lightcone.errors import SessionError
from lightcone.project.context import Context
from lightcone.project.variables import ADDRESS_VARIABLE
from lightcone.session.client import closing, open_client, silence_engine_logs
from lightcone.wire.protocol import unpack
from lightcone.wire.transport import Receive, Transport

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["describe", "join_external"]

_CALL_TIMEOUT = 10.0
_NAMED = f"The cluster named by {ADDRESS_VARIABLE}"


def describe(address: str) -> dict[str, Any]:
    """Describe the cluster at ``address``, in the form of a session.

    Raises:
        SessionError: where it cannot be reached.
    """
    silence_engine_logs()
    with closing(open_client(address)) as client:
        info = client.scheduler_info(n_workers=-1)
    workers = [
        {
            "host": worker["host"],
            "cpus": worker["resources"].get("CPU", worker["nthreads"]),
            "memory": int(worker["resources"].get("MEMORY", worker["memory_limit"] or 0)),
            "gpus": int(worker["resources"].get("GPU", 0)),
        }
        for worker in info["workers"].values()
    ]
    return {
        "state": "alive",
        "name": address,
        "kind": "external",
        "host": address.partition("://")[2].rpartition(":")[0],
        "address": address,
        "workers": workers,
    }


@contextlib.contextmanager
def join_external(
    address: str, context: Context
) -> Iterator[tuple[Transport, list[dict[str, float]]]]:
    """Connect to the cluster at ``address``; yields a transport and worker resources.

    The resources are empty unless every worker declares processors.

    Raises:
        SessionError: where it cannot be reached, or cannot serve ``context``, with what it lacks.
    """
    silence_engine_logs()
    with closing(open_client(address)) as client:
        resources = _prepare(client, context)
        yield _ClientTransport(client), resources


class _ClientTransport:
    """A transport over a client in this process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: Any = client.loop
        self._unsent: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()

    def open(self, run: str, description: Mapping[str, Any], take: Receive) -> None:
        from lightcone.scheduler.caller import Caller

        caller = Caller(self._client, lambda packed: take(unpack(packed)))
        try:
            self._client.sync(caller.begin, run, description, callback_timeout=_CALL_TIMEOUT)
        except OSError as error:
            raise SessionError(
                "The cluster was lost as it was about to be used: run again."
            ) from error

        async def pass_on() -> None:
            while True:
                message = await self._unsent.get()
                try:
                    await caller.handle(message)
                except Exception as error:
                    take([{"event": "ended", "reason": f"{type(error).__name__}: {error}"}])
                    return

        self._loop.add_callback(pass_on)

    def send(self, message: Mapping[str, Any]) -> None:
        self._loop.add_callback(self._unsent.put_nowait, message)


def _prepare(client: Client, context: Context) -> list[dict[str, float]]:
    """Check that the cluster can serve ``context``, and register the plugins."""
    from lightcone.scheduler.runs import Runs
    from lightcone.worker.tasks import Commands

    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise SessionError(f"{_NAMED} has no workers: start some, or unset it.")
    resources = [dict(worker["resources"]) for worker in workers]
    declared = all("CPU" in resource for resource in resources)
    _check_probes(_probe_cluster(client, str(context.root)), str(context.root))
    try:
        client.register_plugin(Runs())
        client.register_plugin(Commands(context.settings.grace, bounded_by_threads=not declared))
    except Exception as error:
        raise _unusable_error(error) from error
    return resources if declared else []


def _probe_cluster(client: Client, root: str) -> dict[str, dict[str, Any]]:
    """Probe the scheduler and each worker; the results by program."""
    from lightcone.wire.node import probe_process

    try:
        scheduler = client.run_on_scheduler(probe_process, root)
        # It keeps no files of the project.
        return {"its scheduler": {**scheduler, "root": True}, **client.run(probe_process, root)}
    except Exception as error:
        raise _unusable_error(error) from error


def _unusable_error(error: Exception) -> SessionError:
    if "lightcone" in str(error):
        remedy = f"install lightcone {__version__} where its scheduler and workers run"
    else:
        remedy = "check that its programs run the Python and the packages of this call"
    return SessionError(f"{_NAMED} cannot be used ({error}): {remedy}, or unset that variable.")


def _check_probes(probes: Mapping[str, Mapping[str, Any]], root: str) -> None:
    mismatched = {
        name: probe["version"] for name, probe in probes.items() if probe["version"] != __version__
    }
    if mismatched:
        raise SessionError(
            f"{_NAMED} runs lightcone {', '.join(sorted(set(mismatched.values())))} on "
            f"{', '.join(sorted(mismatched))}, and this is {__version__}: install the same there, "
            "or unset that variable."
        )
    without = sorted(name for name, probe in probes.items() if not probe["root"])
    if without:
        raise SessionError(
            f"{_NAMED} does not see the project's directory {root} on {', '.join(without)}: put "
            "the project where all its workers see it."
        )
