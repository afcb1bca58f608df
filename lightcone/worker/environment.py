"""The environment that a command sees: its caller's, with what the node and its share must set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lightcone.project.variables import ADDRESS_VARIABLE, OWN_ADDRESS_VARIABLE, RECIPE_VARIABLE
from lightcone.slurm.allocation import DEVICES, command_environment, job_id

__all__ = ["build_environment", "caller_environment", "describe_caller", "shell_arguments"]

# Where nothing is said, numerical libraries take every processor of the machine for each recipe.
_THREAD_CAPS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)


# Where the shell is by the path that was searched: a batch looks for it again and again.
_found: dict[str | None, str] = {}


def describe_caller() -> dict[str, Any]:
    """What a command has to know of this process: its environment, umask, and directory."""
    umask = os.umask(0o077)
    os.umask(umask)
    # As bytes, which they are: not everything in them need be text.
    variables = [name + b"=" + value for name, value in os.environb.items()]
    return {"environment": variables, "umask": umask, "directory": os.getcwdb()}


def caller_environment(told: Mapping[str, Any]) -> dict[str, str]:
    """The environment of the caller that said ``told`` of itself."""
    return dict(_decoded(tuple(told["environment"])))


@lru_cache(maxsize=16)
def _decoded(environment: tuple[bytes, ...]) -> Mapping[str, str]:
    assignments = (os.fsdecode(each).partition("=") for each in environment)
    return {variable: value for variable, _, value in assignments}


def build_environment(
    told: Mapping[str, Any],
    cpus: float,
    gpus: Sequence[str],
    name: str | None,
    session: Mapping[str, str],
) -> dict[str, str]:
    """The environment of a command, for the run described by ``told``.

    Args:
        told: what the caller has said of itself.
        cpus: the processors it was given; what the caller has set of its libraries' threads wins.
        gpus: the devices it was given, which win over the caller's.
        name: the output's, for a recipe.
        session: the variables by which its own programs find the session; what the caller has
            set of them wins.
    """
    environment = caller_environment(told)
    granted: tuple[str, ...] = ()
    if job_id(os.environ) is not None:  # on a node of an allocation
        environment = command_environment(environment, os.environ)
        granted = tuple(name for name in DEVICES if name in os.environ)
    if OWN_ADDRESS_VARIABLE in environment:
        environment |= session
    elif ADDRESS_VARIABLE not in environment:
        environment = {**session, **environment}
    if gpus:
        environment |= dict.fromkeys(("CUDA_VISIBLE_DEVICES", *granted), ",".join(gpus))
    threads = str(max(1, int(cpus)))
    for variable in _THREAD_CAPS:
        environment.setdefault(variable, threads)
    # A program that writes into a pipe would otherwise be heard of only when it ends.
    environment.setdefault("PYTHONUNBUFFERED", "1")
    if name is not None:
        environment[RECIPE_VARIABLE] = name
    return environment


def _bash(path: str | None) -> str | None:
    found = _found.get(path)
    if found is None or not os.access(found, os.X_OK):
        found = shutil.which("bash", path=path)
        if found is not None:
            _found[path] = found
    return found


def shell_arguments(command: str, environment: Mapping[str, str]) -> list[str]:
    """The argument list that runs a recipe's command, failing when any part of it fails."""
    bash = _bash(environment.get("PATH"))
    if bash is not None:
        return [bash, "-e", "-o", "pipefail", "-c", command]
    return ["/bin/sh", "-e", "-c", command]
