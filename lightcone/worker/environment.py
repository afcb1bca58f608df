"""The environment of a command: its caller's, adapted to the node and its share."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lightcone.errors import LightconeError
from lightcone.project.variables import ADDRESS_VARIABLE, OWN_ADDRESS_VARIABLE, RECIPE_VARIABLE
from lightcone.slurm.allocation import DEVICES, command_environment, job_id
from lightcone.system.files import remove, write_new

__all__ = [
    "build_environment",
    "caller_environment",
    "describe_caller",
    "one_argument",
    "shell_arguments",
]

# The kernel refuses a longer argument (MAX_ARG_STRLEN of execve(2)).
_MAX_ARGUMENT = 128 * 1024

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
    """Return the arguments that run a command, failing when any part fails.

    Raises:
        LightconeError: where there is no shell that can fail so.
    """
    path = environment.get("PATH")
    shell = _bash(path) or _sh_with_pipefail()
    if shell is None:
        raise LightconeError(
            f"it needs bash, which is not on the PATH of this run on {socket.gethostname()}: "
            "install bash, or add its directory to PATH"
        )
    return [shell, "-e", "-o", "pipefail", "-c", command]


@cache
def _sh_with_pipefail() -> str | None:
    """Return the system's own shell, if it fails where a part of a pipe does."""
    from lightcone.system.processes import run_quiet

    found = run_quiet("/bin/sh", "-c", "set -o pipefail && echo yes")
    return "/bin/sh" if found == "yes" else None


@contextlib.contextmanager
def one_argument(command: str, file: Path, read: str = "<") -> Iterator[str]:
    """Yield what a shell is given for a command, which may be longer than any one argument.

    A long command is written to ``file`` for as long as the context is open, and the shell reads
    it from there, with its own ``$(<file)`` or another ``read``.

    Raises:
        OSError: where the file cannot be written.
    """
    content = command.encode(errors="surrogateescape")
    if len(content) < _MAX_ARGUMENT:
        yield command
        return
    remove(file)
    write_new(file, content, 0o600)
    try:
        yield f'eval "$({read} {shlex.quote(str(file))})"'
    finally:
        remove(file)
