"""The engine's command lines and settings, which only this module writes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightcone.project.variables import ADDRESS_VARIABLE, OWN_ADDRESS_VARIABLE
from lightcone.system import guard

__all__ = [
    "MEMORY_VARIABLE",
    "SETTINGS_VARIABLE",
    "STATE_VARIABLE",
    "client_variables",
    "driver_command",
    "engine_settings",
    "node_step_command",
    "node_worker_command",
    "overview_command",
    "scheduler_command",
    "steps_command",
    "worker_command",
]

SETTINGS_VARIABLE = "DASK_CONFIG"
STATE_VARIABLE = "LIGHTCONE_SESSION_STATE"
MEMORY_VARIABLE = "LIGHTCONE_SESSION_MEMORY"
# In UTF-8 mode, because the spec is UTF-8 whatever the locale of the first caller.
_PYTHON = (sys.executable, "-P", "-X", "utf8")
_PROGRAM = (*_PYTHON, "-m", "lightcone.system.interpreter")
_LOOPBACK = "127.0.0.1"
# A dead node sends nothing; a busy one sends a heartbeat every few seconds.
_WORKER_TTL = "120s"
# Seconds that a worker takes to close besides what it gives its commands.
_MARGIN = 5.0


def engine_settings(state: Path, certificate: Path, *, nodes: bool = False) -> dict[str, Any]:
    """Build every engine setting that a session depends on.

    Args:
        state: the session's state directory.
        certificate: the file with the session's key and certificate.
        nodes: whether its workers are on other hosts, as in an allocation.
    """
    pair = {"cert": str(certificate), "key": str(certificate)}
    return {
        "temporary-directory": str(state / "spill"),
        "logging": {"lightcone": "info", "distributed": "info"},
        "distributed": {
            "comm": {
                "require-encryption": True,
                "default-scheme": "tls",
                "tls": {
                    "ca-file": str(certificate),
                    "scheduler": pair,
                    "worker": pair,
                    "client": pair,
                },
            },
            "scheduler": {
                "allowed-failures": 0,
                # One task sent ahead to a busy worker would wait there while another is free.
                "worker-saturation": 1.0,
                # A suspended machine must not wake to find its worker removed.
                "worker-ttl": _WORKER_TTL if nodes else None,
                "events-cleanup-delay": "10s",
                "http": {"routes": []},
                "preload": [],
            },
            "worker": {
                "http": {"routes": []},
                "preload": [],
                "profile": {"enabled": False},
                "memory": {"monitor-interval": "500ms"},
            },
            # As they come these cost an idle session a twentieth of a core.
            "admin": {
                "tick": {"interval": "1s", "limit": "30s", "cycle": "60s"},
                "system-monitor": {"interval": "2s", "disk": False, "gil": {"enabled": False}},
                # Of every connection and topic the last messages would be kept, megabytes each.
                "low-level-log-length": 0,
            },
        },
    }


def client_variables(address: str, certificate: Path) -> dict[str, str]:
    """Build the variables by which engine programs find the session at ``address``.

    The values are no secrets: the key is in the file.
    """
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    return {
        ADDRESS_VARIABLE: address,
        OWN_ADDRESS_VARIABLE: address,
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        f"{tls}CA_FILE": str(certificate),
        f"{tls}CLIENT__CERT": str(certificate),
        f"{tls}CLIENT__KEY": str(certificate),
    }


def scheduler_command(
    state: Path, certificate: Path, grace: float, host: str = _LOOPBACK
) -> list[str]:
    """Build the guarded command of a session's scheduler at the address ``host``."""
    program = [*_PROGRAM, "distributed.cli.dask_scheduler"]
    program += ["--host", host, "--port", "0", "--protocol", "tls"]
    program += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    program += ["--preload", "lightcone.scheduler.plugin"]
    # Without the scheduler there is nobody for whom the key would be good.
    return _guarded(program, state, "scheduler", grace, f"--remove={certificate}")


def worker_command(
    state: Path, grace: float, name: str, cpus: int | None = None, memory: int | None = None
) -> list[str]:
    """Build the command of this host's worker, guarded and restarted on failure.

    It has no more than ``cpus`` processors and ``memory`` bytes, or all that it may have.
    """
    inner = _worker(state, grace, name, _LOOPBACK, state / "spill", cpus, memory)
    return _guarded(inner, state, "worker", grace)


def steps_command(state: Path, grace: float, commands: Sequence[Sequence[str]]) -> list[str]:
    """Combine the commands that start remote workers into one guarded command."""
    program = list(commands[0])
    if len(commands) > 1:
        script = "".join(f"{shlex.join(each)} & " for each in commands)
        program = ["/bin/sh", "-c", f"{script}wait"]
    # The scheduler ends the workers: signals to these commands would kill all on the nodes.
    return _guarded(program, state, "worker", grace, f"--patience={grace + _MARGIN}")


def node_step_command(state: Path, grace: float) -> list[str]:
    """Build the command that a step runs to become its node's worker."""
    return [*_PYTHON, "-m", "lightcone.worker.step", str(state), str(grace)]


def node_worker_command(
    state: Path, grace: float, name: str, host: str, spill: Path, cpus: int, memory: int | None
) -> list[str]:
    """Build the guarded command of one node's worker.

    Args:
        state: the session's state directory.
        grace: seconds between asking its commands to end and ending them.
        name: the name of the host.
        host: the address to listen at.
        spill: the directory for data that does not fit in memory.
        cpus: the processors that it has.
        memory: the bytes that it has; None for all that the machine lets it have.
    """
    inner = _worker(state, grace, name, host, spill, cpus, memory)
    # What it prints goes to the log of the one that started the steps.
    extra = [f"--remove={spill}"]
    # The engine believes no figure above what the machine shows.
    extra += [] if memory is None else [f"--set={MEMORY_VARIABLE}={memory}"]
    return _guarded(inner, state, None, grace, *extra)


def overview_command(runtime: Path) -> list[str]:
    """Build the command of the live view's window; ``runtime`` has the session's sockets."""
    return [*_PYTHON, "-m", "lightcone.view.overview", str(runtime)]


def driver_command(state: Path, directory: Path, grace: float, program: list[str]) -> list[str]:
    """Build the guarded command of an ``lc run`` driver inside the session.

    Its output and its exit status go to ``log`` and ``status`` in ``directory``.
    """
    options = [
        f"--log={directory / 'log'}",
        f"--status={directory / 'status'}",
        f"--members={state / 'members.lock'}",
        f"--grace={grace}",
    ]
    return [*_guard_program(), *options, "--", *program]


def _worker(
    state: Path,
    grace: float,
    name: str,
    host: str,
    spill: Path,
    cpus: int | None,
    memory: int | None,
) -> list[str]:
    # Under a guard of its own inside the outer one: when either is killed, the other ends what is
    # left.
    program = [*_PROGRAM, "distributed.cli.dask_worker"]
    program += ["--scheduler-file", str(state / "session.json"), "--no-nanny", "--name", name]
    program += ["--host", host, "--protocol", "tls"]
    program += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    program += ["--local-directory", str(spill)]
    program += ["--preload", "lightcone.worker.plugin"]
    program += [] if cpus is None else ["--nthreads", str(cpus)]
    program += [] if memory is None else ["--memory-limit", str(memory)]
    return [*_guard_program(), f"--grace={grace}", "--restart", "--", *program]


def _guarded(
    program: list[str], state: Path, role: str | None, grace: float, *extra: str
) -> list[str]:
    options = [
        *extra,
        *([] if role is None else [f"--log={state / 'logs' / role}.log"]),
        f"--members={state / 'members.lock'}",
        f"--grace={grace}",
        # What the first caller's shell sets for the engine is not the session's.
        "--drop=DASK_",
        f"--set={SETTINGS_VARIABLE}={state / 'engine.json'}",
        f"--set={STATE_VARIABLE}={state}",
        # The engine's programs send these two to each other, and can send nothing but UTF-8.
        "--set=LANG=C.UTF-8",
        "--set=LC_ALL=C.UTF-8",
    ]
    return [*_guard_program(), *options, "--", *program]


def _guard_program() -> list[str]:
    return [sys.executable, "-I", "-S", "-X", "utf8", guard.__file__]
