"""Checks whether this machine can run sessions: programs, directories, locks, disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightcone.errors import LightconeError
from lightcone.project.context import SPEC_FILE, Context
from lightcone.project.host import SOCKET_PATH_MAX
from lightcone.session import doctor_host
from lightcone.session.doctor_host import Check, Verdict
from lightcone.session.terminal import tmux
from lightcone.spec.outputs import load_outputs
from lightcone.system.locks import Lock
from lightcone.system.mounts import alternative_path, file_system
from lightcone.system.processes import run_quiet
from lightcone.system.units import format_bytes, format_seconds
from lightcone.worker.containers.image import Runtime

__all__ = ["check_machine", "versions"]

_MIN_FREE_DISK = 1 << 30
_SAMPLE_BYTES = 1 << 20
_MAX_SKEW = 60.0
_PACKAGES = (
    "dask",
    "distributed",
    "libtmux",
    "filelock",
    "cryptography",
    "psutil",
    "astra-tools",
    "astra-spec",
)
_ELSEWHERE = "set LIGHTCONE_SCRATCH to a directory elsewhere"
_TRY_TO_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""
_LOCK_HELD = 3


def check_machine(context: Context) -> list[Check]:
    """Run every check of this machine for a session of ``context``.

    It takes a few seconds at most, and changes nothing but that it creates the session's
    directories, as a start does.
    """
    checks: list[Callable[[Context], Check]] = [
        _python,
        _engine,
        _terminal_server,
        _directories,
        _socket_path,
        _locks,
        _disk,
        _clock,
    ]
    results = [check(context) for check in checks]
    return [*results, *doctor_host.check_host(context), _containers(context)]


def versions(context: Context) -> list[str]:
    """Package versions and scratch's file system, for a bug report."""
    lines = []
    tmux_version = run_quiet("tmux", "-V")
    if tmux_version:
        lines.append(tmux_version)
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            lines.append(f"{package} {version(package)}")
    kind = file_system(context.scratch)
    return [*lines, f"scratch on {kind}"] if kind else lines


def _python(context: Context) -> Check:
    return Check("python", Verdict.OK, f"{sys.version.split()[0]} at {sys.executable}")


def _engine(context: Context) -> Check:
    try:
        import distributed  # noqa: F401
    except Exception as error:
        found = f"it cannot be imported ({type(error).__name__}: {error})"
        remedy = "install lightcone again, into an environment of its own"
        return Check("engine", Verdict.FAILURE, found, remedy)
    return Check("engine", Verdict.OK, f"distributed {version('distributed')}")


def _terminal_server(context: Context) -> Check:
    try:
        return Check("tmux", Verdict.OK, tmux.check())
    except LightconeError as error:
        return Check("tmux", Verdict.FAILURE, str(error), "install tmux 3.2 or newer")


def _directories(context: Context) -> Check:
    name = "directories"
    try:
        context.prepare()
    except LightconeError as error:
        return Check(name, Verdict.FAILURE, str(error), "do as the sentence says")
    for place, variable in (
        (context.runtime, "LIGHTCONE_RUNTIME_DIR"),
        (context.scratch, "LIGHTCONE_SCRATCH"),
    ):
        for parent in Path(os.path.realpath(place)).parents:
            mode = parent.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                found = f"other users can rename {place}, as all may write to {parent}"
                remedy = f"have that closed ('chmod +t {parent}'), or set {variable} elsewhere"
                return Check(name, Verdict.WARNING, found, remedy)
    return Check(name, Verdict.OK, f"sockets in {context.runtime}, scratch is {context.scratch}")


def _socket_path(context: Context) -> Check:
    length = len(os.fsencode(context.control_socket))
    found = f"{length} bytes, of {SOCKET_PATH_MAX} that this system allows"
    if length > SOCKET_PATH_MAX:
        remedy = "set LIGHTCONE_RUNTIME_DIR to a shorter path"
        return Check("socket path", Verdict.FAILURE, found, remedy)
    return Check("socket path", Verdict.OK, found)


def _locks(context: Context) -> Check:
    """Check that locks exclude another process, also under another path."""
    name, remedy = "locks", "set LIGHTCONE_SCRATCH to a directory on a file system with locks"
    place = context.scratch / ".lightcone"
    path = place / "doctor.lock"
    lock = Lock(path)
    try:
        if not lock.acquire(timeout=5.0):
            return Check(name, Verdict.FAILURE, f"{path} cannot be locked", remedy)
        try:
            paths = [path, *filter(None, [alternative_path(path)])]
            unlocked = [each for each in paths if not _is_held(each)]
        finally:
            lock.release()
    except (LightconeError, OSError) as error:
        return Check(name, Verdict.FAILURE, str(error), remedy)
    if unlocked:
        found = f"two processes got the same lock at once, the second as {unlocked[0]}"
        return Check(name, Verdict.FAILURE, found, remedy)
    found = f"those on {place} ({file_system(place) or 'its file system'}) exclude other processes"
    alternative = f", also as {paths[1].parent}" if len(paths) > 1 else ""
    return Check(name, Verdict.OK, found + alternative)


def _is_held(path: Path) -> bool:
    """Whether another process fails to take the lock."""
    command = [sys.executable, "-I", "-S", "-c", _TRY_TO_LOCK, str(path)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == _LOCK_HELD


def _disk(context: Context) -> Check:
    place = _nearest_existing(context.scratch)
    free = shutil.disk_usage(place).free
    found = f"{format_bytes(free)} free for {context.scratch}"
    remedy = f"make room, or {_ELSEWHERE}"
    try:
        # What there is need not be what this user's quota lets him have.
        with tempfile.TemporaryFile(dir=place) as sample:
            sample.write(b"\0" * _SAMPLE_BYTES)
            sample.flush()
            os.fsync(sample.fileno())
    except OSError as error:
        found = f"nothing can be written to {place} ({error.strerror})"
        return Check("disk", Verdict.FAILURE, found, remedy)
    if free < _MIN_FREE_DISK:
        return Check("disk", Verdict.WARNING, found, remedy)
    return Check("disk", Verdict.OK, found)


def _nearest_existing(path: Path) -> Path:
    """The directory, or its nearest parent that exists."""
    return next(each for each in (path, *path.parents) if os.path.isdir(each))


def _clock(context: Context) -> Check:
    """Check that the file system's clock agrees with this host's."""
    place = _nearest_existing(context.scratch)
    try:
        before = time.time()
        with tempfile.TemporaryFile(dir=place) as sample:
            file_time = os.fstat(sample.fileno()).st_mtime
    except OSError as error:
        found = f"not compared with that of {place} ({error.strerror})"
        return Check("clock", Verdict.OK, found)
    skew = file_time - before
    if abs(skew) < _MAX_SKEW:
        return Check("clock", Verdict.OK, f"as that of the file system of {place}")
    side = "ahead of" if skew > 0 else "behind"
    amount = format_seconds(abs(skew))
    found = f"that of the file system of {place} is {amount} {side} this host's"
    return Check("clock", Verdict.WARNING, found, "have both set by the same time server")


def _containers(context: Context) -> Check:
    """Check that a runtime exists for the project's containers."""
    name = "containers"
    runtimes = [each for each in Runtime if shutil.which(each) is not None]
    if not runtimes:
        count = _count_containers(context)
        if not count:
            return Check(name, Verdict.OK, "no runtime for them, and no output here that needs one")
        found = f"no runtime for them, and {count} of the outputs here need one"
        return Check(
            name, Verdict.WARNING, found, "install apptainer or podman, or load its module"
        )
    found = f"{_runtime_version(runtimes[0])} runs them"
    if len(runtimes) > 1:
        found += (
            f"; {', '.join(map(_runtime_version, runtimes[1:]))} would, were it the first found"
        )
    if runtimes[0] is Runtime.DOCKER and run_quiet("docker", "info") is None:
        found = f"{_runtime_version(runtimes[0])} would run them, and its engine does not answer"
        return Check(name, Verdict.WARNING, found, "start it, or install apptainer or podman")
    return Check(name, Verdict.OK, found)


def _runtime_version(runtime: Runtime) -> str:
    number = re.search(r"\d+(\.\d+)+", run_quiet(runtime, "--version") or "")
    return f"{runtime} {number[0]}" if number else f"{runtime}, which does not tell its version,"


def _count_containers(context: Context) -> int:
    """The number of outputs that declare a container; 0 outside a valid project."""
    if not (context.root / SPEC_FILE).is_file():
        return 0
    try:
        outputs = load_outputs(context.root, context.settings)
    except LightconeError:
        return 0
    return len({output.id for output in outputs if output.container})
