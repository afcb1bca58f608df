"""The environment of a command: its caller's, adapted to the node and its share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lightcone.project.variables import ADDRESS_VARIABLE, OWN_ADDRESS_VARIABLE, RECIPE_VARIABLE
from lightcone.slurm.allocation import DEVICES, command_environment, job_id

__all__ = ["build_environment", "caller_environment", "describe_caller", "shell_arguments"]

# Without these, numerical libraries take every processor of the machine for each recipe.
_THREAD_CAPS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)


# The path of the shell for each PATH, cached because a batch searches for it repeatedly.
_bash_paths: dict[str | None, str] = {}


def describe_caller() -> dict[str, Any]:
    """Describe this process to its commands: environment, umask and directory."""
    umask = os.umask(0o077)
    os.umask(umask)
    # As bytes, which they are: not everything in them need be text.
    variables = [name + b"=" + value for name, value in os.environb.items()]
    return {"environment": variables, "umask": umask, "directory": os.getcwdb()}


def caller_environment(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of the caller with this description."""
    return dict(_decode(tuple(description["environment"])))


@lru_cache(maxsize=16)
def _decode(environment: tuple[bytes, ...]) -> Mapping[str, str]:
    assignments = (os.fsdecode(each).partition("=") for each in environment)
    return {variable: value for variable, _, value in assignments}


def build_environment(
    description: Mapping[str, Any],
    cpus: float,
    gpus: Sequence[str],
    name: str | None,
    session_variables: Mapping[str, str],
) -> dict[str, str]:
    """Build the environment of a command.

    Args:
        description: the caller's, from :func:`describe_caller`.
        cpus: the processors it was given; what the caller has set of its libraries' threads wins.
        gpus: the devices it was given, which win over the caller's.
        name: the output's, for a recipe.
        session_variables: the variables by which its own programs find the session; what the
            caller has set of them wins.
    """
    environment = caller_environment(description)
    device_variables: tuple[str, ...] = ()
    if job_id(os.environ) is not None:  # on a node of an allocation
        environment = command_environment(environment, os.environ)
        device_variables = tuple(name for name in DEVICES if name in os.environ)
    if OWN_ADDRESS_VARIABLE in environment:
        environment |= session_variables
    elif ADDRESS_VARIABLE not in environment:
        environment = {**session_variables, **environment}
    if gpus:
        environment |= dict.fromkeys(("CUDA_VISIBLE_DEVICES", *device_variables), ",".join(gpus))
    threads = str(max(1, int(cpus)))
    for variable in _THREAD_CAPS:
        environment.setdefault(variable, threads)
    # The output of a program that writes into a pipe would otherwise come only when it ends.
    environment.setdefault("PYTHONUNBUFFERED", "1")
    if name is not None:
        environment[RECIPE_VARIABLE] = name
    return environment


def _bash(path: str | None) -> str | None:
    bash = _bash_paths.get(path)
    if bash is None or not os.access(bash, os.X_OK):
        bash = shutil.which("bash", path=path)
        if bash is not None:
            _bash_paths[path] = bash
    return bash


def shell_arguments(command: str, environment: Mapping[str, str]) -> list[str]:
    """Return the arguments that run a command, failing when any part fails."""
    bash = _bash(environment.get("PATH"))
    if bash is not None:
        return [bash, "-e", "-o", "pipefail", "-c", command]
    return ["/bin/sh", "-e", "-c", command]
