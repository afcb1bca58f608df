"""The image of a recipe's container, and its name in each runtime's form."""

from __future__ import annotations

import re
import socket
from enum import StrEnum
from pathlib import Path

from lightcone.errors import LightconeError

__all__ = ["ContainerError", "Runtime", "image_name"]

_TRANSPORT = re.compile(
    r"(docker|oras|library|shub)://|(docker-archive|oci-archive|docker-daemon):"
)
_IMAGE_FILES = (".sif", ".sqsh", ".sqfs", ".img")
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_BUILD_FILE = re.compile(
    r"((container|docker)file([.-].*)?|.*\.((container|docker)file|def))", re.I
)


class ContainerError(LightconeError):
    """The recipe's container cannot be run here."""


class Runtime(StrEnum):
    """The container runtimes, in the order of preference."""

    APPTAINER = "apptainer"
    SINGULARITY = "singularity"
    PODMAN = "podman"
    DOCKER = "docker"

    @property
    def is_apptainer(self) -> bool:
        """Whether its containers are plain descendants of the program that starts them."""
        return self in (Runtime.APPTAINER, Runtime.SINGULARITY)


def image_name(declared: str, root: Path, runtime: Runtime) -> str:
    """Translate the image ``declared`` in a project at ``root`` to ``runtime``'s form.

    An image is a name of a registry, a name with a transport (``docker://…``, ``oras://…``,
    ``docker-archive:…``) or the path of a file: an image of apptainer or singularity, or an archive
    that ``podman save`` or ``docker save`` wrote.

    Raises:
        ContainerError: where it is none of these, or ``runtime`` cannot run it.
    """
    if not declared or declared.startswith("-") or re.search(r"\s", declared):
        raise ContainerError(f"its container {declared!r} is no image: name one, or a file of one")
    transport = _TRANSPORT.match(declared)
    if transport is not None:
        return _with_transport(declared, transport.group(1) or transport.group(2), runtime)
    path = root / declared
    name = path.name.lower()
    if _BUILD_FILE.fullmatch(name) and (path.is_file() or ":" not in name):
        build = f"podman build -t NAME -f {declared} ."
        if name.endswith(".def"):
            build = f"apptainer build IMAGE.sif {declared}"
        raise ContainerError(
            f"its container {declared} says how to build an image, and none is built here: run "
            f"'{build}', and name what that makes as the container"
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
