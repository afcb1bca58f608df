"""A recipe's container: which runtime runs it, and with which command.

The first of apptainer, singularity, podman and docker that is in the ``PATH`` of the caller runs
it. Whichever it is, the recipe is what it is without a container: it has the caller's user,
environment, working directory, umask, network and shared memory, and the project, the scratch
directory, the inputs and ``TMPDIR`` at their own paths. Of the environment only what belongs to
the image stays the image's: ``PATH``, ``LD_LIBRARY_PATH`` and ``LD_PRELOAD``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lightcone.analysis.output import Output
from lightcone.cluster.keeper import RuntimeCommands
from lightcone.errors import LightconeError

__all__ = ["Container", "ContainerError", "Launch", "Runtime", "mounts"]

_IMAGES_OWN = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
_TRANSPORT = re.compile(
    r"(docker|oras|library|shub)://|(docker-archive|oci-archive|docker-daemon):"
)
_IMAGE_FILES = (".sif", ".sqsh", ".sqfs", ".img")
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_BUILD_FILE = re.compile(
    r"((container|docker)file([.-].*)?|.*\.((container|docker)file|def))", re.I
)
# What a path given to a runtime could be taken apart at.
_UNMOUNTABLE = re.compile(r'[,:"\n]')
_ENGINE_PATIENCE = 20.0
_LONGEST_NAME = 100
# The first process of a container acts on no signal that it has no handler for, so that is a shell
# which stays, and the recipe its child. It is bash where the image has one, as without a container.
_SCRIPT = """\
umask {umask:03o}
if command -v bash >/dev/null 2>&1
then set -- bash -e -o pipefail -c "$1"
else set -- /bin/sh -e -c "$1"
fi
"$@"
exit $?"""
_ASK = "kill -s TERM -- -1"


class ContainerError(LightconeError):
    """The recipe's container cannot be run here."""


class Runtime(StrEnum):
    """What can run a container, in the order of preference."""

    APPTAINER = "apptainer"
    SINGULARITY = "singularity"
    PODMAN = "podman"
    DOCKER = "docker"

    @property
    def is_apptainer(self) -> bool:
        """Whether its containers are plain descendants of the program that starts them."""
        return self in (Runtime.APPTAINER, Runtime.SINGULARITY)


@dataclass(frozen=True)
class Launch:
    """How a recipe is run in its container.

    Attributes:
        argv: the program and its arguments.
        commands: how the container is ended; None where it ends with the program's descendants.
    """

    argv: list[str]
    commands: RuntimeCommands | None


@dataclass(frozen=True)
class Container:
    """An image and what runs it.

    Attributes:
        runtime: what runs it.
        program: the runtime's program.
        image: the image, as the runtime wants it named.
        user: the runtime's options that make the recipe's user the caller's.
    """

    runtime: Runtime
    program: str
    image: str
    user: tuple[str, ...] = ()

    @staticmethod
    def choose(output: Output, environment: Mapping[str, str]) -> Container:
        """The container of ``output``, which declares one, for a caller with ``environment``.

        Raises:
            ContainerError: where nothing here can run it.
        """
        declared = (output.container or "").strip()
        found = (
            (runtime, program)
            for runtime in Runtime
            if (program := shutil.which(runtime, path=environment.get("PATH")))
        )
        runtime, program = next(found, (None, ""))
        if runtime is None:
            raise ContainerError(
                f"its container {declared} needs apptainer, podman or docker, and the PATH of this "
                f"run has none of them on {socket.gethostname()}: install one, or load its module"
            )
        image = image_name(declared, output.root, runtime)
        user: list[str] = []
        if runtime is Runtime.PODMAN:
            user = podman_user(os.geteuid() == 0)
        elif runtime is Runtime.DOCKER:
            user = docker_user(_docker_security(declared, program, environment))
        return Container(runtime, program, image, tuple(user))

    def describe(self) -> str:
        """The container in words, for a recipe's log."""
        return f"in container {self.image}, run by {self.runtime}"

    def launch(
        self, output: Output, environment: Mapping[str, str], umask: int, scratch: Path, task: str
    ) -> Launch:
        """The way to run the recipe of ``output`` in this container.

        Args:
            output: whose recipe.
            environment: the recipe's environment, which the program is given too.
            umask: the recipe's file mode creation mask.
            scratch: the scratch directory.
            task: names the container.

        Raises:
            ContainerError: where something cannot be mounted.
        """
        paths = mounts(output, scratch, environment)
        inside = ["-c", _SCRIPT.format(umask=umask), "sh", output.command]
        if self.runtime.is_apptainer:
            argv = [self.program, "exec", "--pwd", str(output.root)]
            argv += ["--nv"] if output.resources.gpus else []
            argv += [word for path in paths for word in ("--bind", str(path))]
            return Launch([*argv, self.image, "/bin/sh", *inside], None)
        name = container_name(task)
        argv = [self.program, "run", "--rm", "--name", name, *self.user]
        argv += ["--workdir", str(output.root), "--network", "host", "--ipc", "host"]
        # Neither a second copy of the recipe's log, nor labels that hide the caller's files.
        argv += ["--log-driver", "none", "--security-opt", "label=disable"]
        if self.runtime is Runtime.PODMAN:
            argv += ["--pids-limit", "-1"]
        if output.resources.gpus:
            # All of them: which are the recipe's own says CUDA_VISIBLE_DEVICES.
            argv += (
                ["--device", "nvidia.com/gpu=all"]
                if self.runtime is Runtime.PODMAN
                else ["--gpus", "all"]
            )
        for path in paths:
            argv += ["--mount", f"type=bind,source={path},target={path}"]
        for variable in sorted(environment):
            # Without values, which the program takes from its own environment: others can see
            # its arguments. A name that ends in * would stand for many.
            if variable not in _IMAGES_OWN and not variable.endswith("*"):
                argv += ["--env", variable]
        argv += ["--entrypoint", "/bin/sh", self.image, *inside]
        listed = [self.program, "ps", "--quiet", "--filter", f"name=^{name}$"]
        commands = RuntimeCommands(
            ask=[self.program, "exec", name, "/bin/sh", "-c", _ASK],
            kill=[self.program, "kill", "--signal", "KILL", name],
            remove=[self.program, "rm", "--force", "--volumes", name],
            running=listed,
            exists=[*listed, "--all"],
        )
        return Launch(argv, commands)


def image_name(declared: str, root: Path, runtime: Runtime) -> str:
    """The image ``declared`` in a project at ``root``, as ``runtime`` wants it named.

    An image is a name of a registry, a name with a transport (``docker://…``, ``oras://…``,
    ``docker-archive:…``) or the path of a file: an image of apptainer or singularity, or an archive
    that ``podman save`` or ``docker save`` wrote.

    Raises:
        ContainerError: where it is none of these, or none that ``runtime`` can run.
    """
    if not declared or declared.startswith("-") or re.search(r"\s", declared):
        raise ContainerError(f"its container {declared!r} is no image: name one, or a file of one")
    transport = _TRANSPORT.match(declared)
    if transport is not None:
        return _with_transport(declared, transport.group(1) or transport.group(2), runtime)
    path = root / declared
    name = path.name.lower()
    if _BUILD_FILE.fullmatch(name) and (path.is_file() or ":" not in name):
        build = "apptainer build IMAGE.sif" if name.endswith(".def") else "podman build -t NAME -f"
        raise ContainerError(
            f"its container {declared} says how to build an image, and none is built here: build "
            f"it with '{build} {declared}', and name the image as the container"
        )
    is_named_as_file = declared.startswith(("/", "./", "../")) or name.endswith(
        (*_IMAGE_FILES, *_ARCHIVES)
    )
    if not (path.is_file() or is_named_as_file):
        return f"docker://{declared}" if runtime.is_apptainer else declared
    if not path.exists():
        raise ContainerError(f"its container {declared} is not there: put the image at {path}")
    if path.is_dir() or name.endswith(_IMAGE_FILES):
        if runtime.is_apptainer:
            return str(path)
        raise _cannot(declared, runtime, "apptainer or singularity")
    if runtime is Runtime.DOCKER:
        raise ContainerError(
            f"its container {declared} is an archive, which docker runs only once it is loaded: "
            f"run 'docker load -i {declared}', and name the image as the container"
        )
    return f"docker-archive:{path}"


def _with_transport(declared: str, transport: str, runtime: Runtime) -> str:
    if runtime.is_apptainer:
        return declared
    if transport in ("oras", "library", "shub"):
        raise _cannot(declared, runtime, "apptainer or singularity")
    if runtime is Runtime.PODMAN:
        return declared
    if transport in ("docker-archive", "oci-archive"):
        raise _cannot(declared, runtime, "apptainer or podman")
    return declared.removeprefix("docker://").removeprefix("docker-daemon:")


def _cannot(declared: str, runtime: Runtime, others: str) -> ContainerError:
    return ContainerError(
        f"its container {declared} cannot be run by {runtime}, which is what there is on "
        f"{socket.gethostname()}: install {others}, or name an image of a registry"
    )


def podman_user(is_root: bool) -> list[str]:
    """The options of podman that make the recipe's user the caller's."""
    return _user() if is_root else ["--userns", "keep-id", *_identity()]


def docker_user(security: Iterable[str]) -> list[str]:
    """The options of docker that do, for an engine that says this of its security."""
    kinds = {option.partition("name=")[2].partition(",")[0] for option in security}
    if "rootless" in kinds:
        return ["--user", "0:0"]  # which is the caller outside
    return [*(["--userns", "host"] if "userns" in kinds else []), *_user()]


def _user() -> list[str]:
    groups = [word for group in os.getgroups() for word in ("--group-add", str(group))]
    return [*_identity(), *groups]


def _identity() -> list[str]:
    return ["--user", f"{os.getuid()}:{os.getgid()}"]


def _docker_security(declared: str, program: str, environment: Mapping[str, str]) -> list[str]:
    """What the engine says of its security; it is a program of its own, and may not be there."""
    try:
        result = subprocess.run(
            [program, "info", "--format", "{{json .SecurityOptions}}"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ENGINE_PATIENCE,
            check=False,
        )
        if result.returncode == 0:
            return [str(option) for option in json.loads(result.stdout) or ()]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        pass
    raise ContainerError(
        f"its container {declared} would be run by docker, whose engine does not answer on "
        f"{socket.gethostname()}: start it, or install apptainer or podman"
    )


def mounts(output: Output, scratch: Path, environment: Mapping[str, str]) -> list[Path]:
    """What the recipe of ``output`` finds at its own path in a container.

    Raises:
        ContainerError: where a path cannot be given to a runtime.
    """
    wanted = [output.root, output.path.parent, output.state_dir, scratch]
    wanted += [given.path for given in output.inputs if given.path is not None]
    if os.path.isabs(environment.get("TMPDIR", "")):
        wanted.append(Path(environment["TMPDIR"]))
    # A link is found where it is, and leads to what it names.
    found = {Path(name) for path in wanted for name in (os.path.abspath(path), path.resolve())}
    paths: list[Path] = []
    for path in sorted(found):
        inside = any(above in path.parents for above in paths)
        if not inside and path != Path("/") and path.exists():
            if _UNMOUNTABLE.search(str(path)):
                raise ContainerError(
                    f"{str(path)!r} cannot be mounted into its container, because the path has a "
                    "comma, a colon, a quote or a line break: rename it"
                )
            paths.append(path)
    return paths


def container_name(task: str) -> str:
    """A name for the container of ``task``, for every runtime, and without what a filter reads."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", task)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 13]}-{hashlib.sha256(task.encode()).hexdigest()[:12]}"
