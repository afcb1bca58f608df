"""SLURM's controller, asked through SLURM's own commands.

Nothing here waits for longer than its timeout, in seconds, and nothing raises: where SLURM does not
answer, the answer is :class:`Unknown`, which says why.
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
"""How SLURM says that it knows no such job."""


@dataclass(frozen=True)
class Unknown:
    """SLURM did not answer.

    Attributes:
        why: a clause: ``squeue did not answer within 5 s``.
    """

    why: str


def node_address(node: str, timeout: float = TIMEOUT) -> str | Unknown:
    """Where a node is reached: an address, or a name that stands for one."""
    said = run_slurm(["scontrol", "show", "node", "-o", node], timeout)
    if isinstance(said, Unknown):
        return said
    found = re.search(r"\bNodeAddr=(\S+)", said)
    return node if found is None else found[1]


def cluster_name(timeout: float = TIMEOUT) -> str | Unknown:
    """The name of the cluster that SLURM's commands ask here."""
    said = run_slurm(["scontrol", "show", "config"], timeout)
    if isinstance(said, Unknown):
        return said
    found = re.search(r"^ClusterName\s*=\s*(\S+)", said, re.MULTILINE)
    return Unknown("scontrol names no cluster") if found is None else found[1]


def run_slurm(argv: Sequence[str], timeout: float, strict: bool = False) -> str | Unknown:
    """What one of SLURM's commands prints.

    ``strict``: it has failed, too, where it leaves with 0 and an error was printed.
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
