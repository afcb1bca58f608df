"""A recipe's container: its runtime and the command that runs it.

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

_IMAGE_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD")
# Characters at which a runtime could split a path.
_UNMOUNTABLE = re.compile(r'[,:"\n]')
# A runtime's own has 64 MB, and a program that overruns it is ended by a signal.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (it is mounted, nothing is opened there)
_MAX_NAME = 100
# The first process of a container acts on no signal that it has no handler for, so that is a shell
# which stays, and the recipe its child. It is bash where the image has one, as without a container;
# another shell has to fail where a part of a pipe does, too.
_SCRIPT = """\
umask {umask:03o}
if command -v bash >/dev/null 2>&1
then set -- bash -e -o pipefail -c "$1"
elif (set -o pipefail) 2>/dev/null
then set -- /bin/sh -e -o pipefail -c "$1"
else
echo "lc: the image has no shell that fails where a part of a pipe does: add bash to it"
exit 126
fi
"$@"
exit $?"""
_TERMINATE_ALL = "kill -s TERM -- -1"


@dataclass(frozen=True)
class Launch:
    """The command line of a recipe in its container.

    Attributes:
        argv: the program and its arguments.
        commands: the runtime's commands for it; None where it ends with the program's descendants.
    """

    argv: list[str]
    commands: RuntimeCommands | None


@dataclass(frozen=True)
class Container:
    """An image and the runtime that runs it.

    Attributes:
        runtime: the runtime.
        program: the runtime's program.
        image: the image's name in the runtime's form.
        options: the options that this installation of the runtime needs, above all for the user.
    """

    runtime: Runtime
    program: str
    image: str
    options: tuple[str, ...] = ()

    @staticmethod
    def choose(output: Output, environment: Mapping[str, str]) -> Container:
        """Choose a runtime for the container that ``output`` declares.

        Args:
            output: the output.
            environment: the caller's.

        Raises:
            ContainerError: where no runtime here can run it.
        """
        declared = (output.container or "").strip()
        available = (
            (runtime, program)
            for runtime in Runtime
            if (program := shutil.which(runtime, path=environment.get("PATH")))
        )
        runtime, program = next(available, (None, ""))
        if runtime is None:
            raise ContainerError(
                f"its container {declared} needs apptainer, podman or docker, and the PATH of this "
                f"run has none of them on {socket.gethostname()}: install one, or load its module"
            )
        image = image_name(declared, output.root, runtime)
        options = user_options(runtime, program, declared, environment)
        return Container(runtime, program, image, tuple(options))

    def describe(self) -> str:
        """Describe the container for a recipe's log."""
        return f"in container {self.image}, run by {self.runtime}"

    def launch(
        self,
        output: Output,
        command: str,
        environment: Mapping[str, str],
        umask: int,
        scratch: Path,
        task: str,
    ) -> Launch:
        """Build the command line that runs the recipe of ``output`` in this container.

        Args:
            output: the output to make.
            command: what the shell in the container runs.
            environment: the recipe's environment, which the program is given too.
            umask: the recipe's file mode creation mask.
            scratch: the scratch directory.
            task: names the container.

        Raises:
            ContainerError: where something cannot be mounted.
        """
        extra = [scratch, Path(environment.get("TMPDIR", ""))]
        if not self.runtime.is_apptainer:
            extra.append(_SHARED_MEMORY)
        paths = mounts(output, extra)
        inside = ["-c", _SCRIPT.format(umask=umask), "sh", command]
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
            if variable not in _IMAGE_VARIABLES and not variable.endswith("*"):
                argv += ["--env", variable]
        argv += ["--entrypoint", "/bin/sh", self.image, *inside]
        list_command = [self.program, "ps", "--quiet", "--filter", f"name=^{name}$"]
        commands = RuntimeCommands(
            terminate=[self.program, "exec", name, "/bin/sh", "-c", _TERMINATE_ALL],
            kill=[self.program, "kill", "--signal", "KILL", name],
            remove=[self.program, "rm", "--force", "--volumes", name],
            running=list_command,
            exists=[*list_command, "--all"],
        )
        return Launch(argv, commands)


def mounts(output: Output, extra: Iterable[Path]) -> list[Path]:
    """List the paths that a recipe's container mounts, each at its own path.

    Args:
        output: the output to make.
        extra: further paths.

    Raises:
        ContainerError: where a path cannot be given to a runtime.
    """
    wanted = [output.root, output.path.parent, output.state_dir]
    for given in output.inputs:
        if given.pattern is not None:
            wanted += [output.root / word for word in given.words]
        elif given.path is not None:
            wanted.append(given.path)
    wanted += [path for path in extra if path.is_absolute()]
    # Both a link's own path and the path that it leads to.
    candidates = {Path(name) for path in wanted for name in (os.path.abspath(path), path.resolve())}
    paths: list[Path] = []
    for path in sorted(candidates):
        covered = any(above in path.parents for above in paths)
        if not covered and path != Path("/") and path.exists():
            if _UNMOUNTABLE.search(str(path)):
                raise ContainerError(
                    f"{str(path)!r} cannot be mounted into its container, because the path has a "
                    "comma, a colon, a quote or a line break: rename it"
                )
            paths.append(path)
    return paths


def container_name(task: str) -> str:
    """Return a name for the container of ``task``, valid in every runtime and filter."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", task)
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 13]}-{hashlib.sha256(task.encode()).hexdigest()[:12]}"
