"""The engine's command lines and settings: the only place that writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lightcone.cluster import guard

__all__ = ["SETTINGS_VARIABLE", "STATE_VARIABLE", "engine_settings", "scheduler", "worker"]

SETTINGS_VARIABLE = "DASK_CONFIG"
STATE_VARIABLE = "LIGHTCONE_SESSION_STATE"
_PYTHON = (sys.executable, "-P")


def engine_settings(state: Path, certificate: Path) -> dict[str, Any]:
    """Every engine setting that a session depends on, for a file of settings.

    Args:
        state: the session's state directory.
        certificate: the file with the session's key and certificate.
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
                "worker-ttl": None,
                "events-cleanup-delay": "10s",
                "http": {"routes": []},
                "preload": [],
            },
            "worker": {"http": {"routes": []}, "preload": [], "profile": {"enabled": False}},
            # As they come these cost an idle session a twentieth of a core.
            "admin": {
                "tick": {"interval": "1s", "limit": "30s", "cycle": "60s"},
                "system-monitor": {"interval": "2s", "disk": False, "gil": {"enabled": False}},
                "low-level-log-length": 200,
            },
        },
    }


def scheduler(state: Path, grace: float) -> list[str]:
    """The command that runs a scheduler on loopback, guarded, for the session at ``state``."""
    program = [*_PYTHON, "-m", "distributed.cli.dask_scheduler"]
    program += ["--host", "127.0.0.1", "--port", "0", "--protocol", "tls"]
    program += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    program += ["--preload", "lightcone.cluster.scheduler"]
    return _guarded(program, state, "scheduler", grace)


def worker(state: Path, grace: float, name: str) -> list[str]:
    """The command that runs this host's worker, guarded and started again when it dies.

    Two guards, one inside the other: when either is killed, the other ends what is left.
    """
    program = [*_PYTHON, "-m", "distributed.cli.dask_worker"]
    program += ["--scheduler-file", str(state / "session.json"), "--no-nanny", "--name", name]
    program += ["--host", "127.0.0.1", "--protocol", "tls"]
    program += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    program += ["--local-directory", str(state / "spill")]
    program += ["--preload", "lightcone.cluster.worker"]
    inner = [*_guard_program(), f"--grace={grace}", "--restart", "--", *program]
    return _guarded(inner, state, "worker", grace)


def _guarded(program: list[str], state: Path, role: str, grace: float) -> list[str]:
    options = [
        f"--log={state / 'logs' / role}.log",
        f"--members={state / 'members.lock'}",
        f"--grace={grace}",
        # What the first caller's shell sets for the engine is not the session's.
        "--drop=DASK_",
        f"--set={SETTINGS_VARIABLE}={state / 'engine.json'}",
        f"--set={STATE_VARIABLE}={state}",
    ]
    return [*_guard_program(), *options, "--", *program]


def _guard_program() -> list[str]:
    return [sys.executable, "-I", "-S", guard.__file__]
