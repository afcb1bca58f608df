"""Queries to SLURM's controller, through SLURM's own commands.

Nothing here waits for longer than its timeout, in seconds, and nothing raises: where SLURM does not
answer, the result is :class:`Unknown`, with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightcone.slurm.allocation import step_environment

__all__ = ["TIMEOUT", "UNKNOWN_JOB", "Unknown", "cluster_name", "node_address", "run_slurm"]

TIMEOUT = 5.0
"""Seconds. A controller that is away is given up by SLURM's own commands after 18 to 20."""

UNKNOWN_JOB = "Invalid job id specified"
"""SLURM's error message for a job that it does not know."""


@dataclass(frozen=True)
class Unknown:
    """The result of a query that SLURM did not answer.

    Attributes:
        why: a clause: ``squeue did not answer within 5 s``.
    """

    why: str


def node_address(node: str, timeout: float = TIMEOUT) -> str | Unknown:
    """Return the address or host name that a node is reached at."""
    output = run_slurm(["scontrol", "show", "node", "-o", node], timeout)
    if isinstance(output, Unknown):
        return output
    match = re.search(r"\bNodeAddr=(\S+)", output)
    return node if match is None else match[1]


def cluster_name(timeout: float = TIMEOUT) -> str | Unknown:
    """Return the name of the cluster that SLURM's commands query here."""
    output = run_slurm(["scontrol", "show", "config"], timeout)
    if isinstance(output, Unknown):
        return output
    match = re.search(r"^ClusterName\s*=\s*(\S+)", output, re.MULTILINE)
    return Unknown("scontrol names no cluster") if match is None else match[1]


def run_slurm(argv: Sequence[str], timeout: float, strict: bool = False) -> str | Unknown:
    """Run one of SLURM's commands and return its output.

    With ``strict``, a command that prints an error has failed even if it exits with 0.
    """
    environment = step_environment(os.environ)
    # Times in seconds since the epoch, messages as they are looked for here.
    environment |= {"SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}
    import subprocess

    try:
        result = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Unknown(f"{argv[0]} did not answer within {timeout:g} s")
    except OSError as error:
        return Unknown(f"{argv[0]} cannot be run ({error.strerror})")
    if result.returncode != 0 or (strict and "error: " in result.stderr):
        lines = result.stderr.strip().splitlines() or ["it said nothing"]
        return Unknown(f"{argv[0]} failed: {lines[-1]}")
    return result.stdout
