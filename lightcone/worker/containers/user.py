"""Runtime options that make a recipe's user in its container the caller's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Mapping

from lightcone.system.processes import run_quiet
from lightcone.worker.containers.image import ContainerError, Runtime

__all__ = ["docker_options", "podman_options", "user_options"]

_PATIENCE = 20.0


def user_options(
    runtime: Runtime, program: str, declared: str, environment: Mapping[str, str]
) -> list[str]:
    """Return the user options for this installation of a runtime.

    Args:
        runtime: the runtime.
        program: its program.
        declared: the container, as the output declares it.
        environment: the caller's.

    Raises:
        ContainerError: where the runtime cannot be used.
    """
    if runtime is Runtime.PODMAN:
        is_root = os.geteuid() == 0
        return podman_options(is_root, is_root or _has_many_ids(program, environment))
    if runtime is Runtime.DOCKER:
        return docker_options(_docker_security(declared, program, environment))
    return []


def podman_options(is_root: bool, has_many_ids: bool) -> list[str]:
    """Return podman's options for the caller's user, without podman's process limit.

    Args:
        is_root: whether the caller is the machine's root.
        has_many_ids: whether podman can give a container other users than the caller.
    """
    if is_root:
        return ["--pids-limit", "-1", *_user()]
    if not has_many_ids:
        return ["--user", "0:0"]  # which is the caller outside
    return ["--userns", "keep-id", *_identity()]


def docker_options(security: Iterable[str]) -> list[str]:
    """Return docker's options for the caller's user, by the engine's security options."""
    kinds = {option.partition("name=")[2].partition(",")[0] for option in security}
    if "rootless" in kinds:
        return ["--user", "0:0"]
    return [*(["--userns", "host"] if "userns" in kinds else []), *_user()]


def _user() -> list[str]:
    groups = [word for group in os.getgroups() for word in ("--group-add", str(group))]
    return [*_identity(), *groups]


def _identity() -> list[str]:
    return ["--user", f"{os.getuid()}:{os.getgid()}"]


def _has_many_ids(program: str, environment: Mapping[str, str]) -> bool:
    """Whether podman can map more than one user here; yes where that is unknown."""
    output = run_quiet(
        program, "unshare", "cat", "/proc/self/uid_map", timeout=_PATIENCE, environment=environment
    )
    return output is None or len(output.splitlines()) > 1


def _docker_security(declared: str, program: str, environment: Mapping[str, str]) -> list[str]:
    """Return the security options of docker's engine, which may not be running."""
    output = run_quiet(
        program,
        "info",
        "--format",
        "{{json .SecurityOptions}}",
        timeout=_PATIENCE,
        environment=environment,
    )
    with contextlib.suppress(ValueError):
        if output is not None:
            return [str(option) for option in json.loads(output) or ()]
    raise ContainerError(
        f"its container {declared} would be run by docker, whose engine does not answer on "
        f"{socket.gethostname()}: start it, or install apptainer or podman"
    )
