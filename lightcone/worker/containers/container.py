"""A recipe's container: which runtime runs it, and with which command.

The first of apptainer, singularity, podman and docker that is in the ``PATH`` of the caller runs
it. Whichever it is, the recipe is what it is without a container: it has the caller's user,
environment, working directory, umask, network and shared memory, and the project, the scratch
directory, the inputs and ``TMPDIR`` at their own paths. Of the environment only what belongs to
the image stays the image's: ``PATH``, ``LD_LIBRARY_PATH`` and ``LD_PRELOAD``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightcone.spec.output import Output
from lightcone.worker.container_supervisor import RuntimeCommands
from lightcone.worker.containers.image import ContainerError, Runtime, image_name
from lightcone.worker.containers.user import user_options

__all__ = ["Container", "Launch", "container_name", "mounts"]

_IMAGES_OWN = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
# What a path given to a runtime could be taken apart at.
_UNMOUNTABLE = re.compile(r'[,:"\n]')
# A runtime's own has 64 MB, and a program that overruns it is ended by a signal.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (it is mounted, nothing is opened there)
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
        options: what this installation of the runtime needs to be told, above all whose user the
            recipe's is.
    """

    runtime: Runtime
    program: str
    image: str
    options: tuple[str, ...] = ()

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
        options = user_options(runtime, program, declared, environment)
        return Container(runtime, program, image, tuple(options))

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
        places = [scratch, Path(environment.get("TMPDIR", ""))]
        if not self.runtime.is_apptainer:
            places.append(_SHARED_MEMORY)
        paths = mounts(output, places)
        inside = ["-c", _SCRIPT.format(umask=umask), "sh", output.command]
        if self.runtime.is_apptainer:
            argv = [self.program, "exec", "--pwd", str(output.root)]
            argv += ["--nv"] if output.resources.gpus else []
            argv += [word for path in paths for word in ("--bind", str(path))]
            return Launch([*argv, self.image, "/bin/sh", *inside], None)
        name = container_name(task)
        argv = [self.program, "run", "--rm", "--name", name, *self.options]
        argv += ["--workdir", str(output.root), "--network", "host"]
        # Neither a second copy of the recipe's log, nor labels that hide the caller's files.
        argv += ["--log-driver", "none", "--security-opt", "label=disable"]
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


def mounts(output: Output, places: Iterable[Path]) -> list[Path]:
    """What the recipe of ``output`` finds at its own path in a container, with ``places``.

    Raises:
        ContainerError: where a path cannot be given to a runtime.
    """
    wanted = [output.root, output.path.parent, output.state_dir]
    wanted += [given.path for given in output.inputs if given.path is not None]
    wanted += [place for place in places if place.is_absolute()]
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
