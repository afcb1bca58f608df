"""Whether sessions can be had here: their programs, and the places they need."""

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

_ENOUGH_DISK = 1 << 30
_SAMPLE = 1 << 20
_SKEW = 60.0
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
_HELD = 3


def check_machine(context: Context) -> list[Check]:
    """Every check of this machine, for a session of ``context``; a few seconds at most.

    Nothing is changed but that the session's directories are made, as by a start.
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
    found = [check(context) for check in checks]
    return [*found, *doctor_host.check_host(context), _containers(context)]


def versions(context: Context) -> list[str]:
    """What a report of a bug has to name: packages with their versions, and the file system."""
    found = []
    tmux_version = run_quiet("tmux", "-V")
    if tmux_version:
        found.append(tmux_version)
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    kind = file_system(context.scratch)
    return [*found, f"scratch on {kind}"] if kind else found


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
        for above in Path(os.path.realpath(place)).parents:
            mode = above.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                found = f"other users can rename {place}, as all may write to {above}"
                remedy = f"have that closed ('chmod +t {above}'), or set {variable} elsewhere"
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
    """Locks between two processes, which a file system may refuse though one process gets them."""
    name, remedy = "locks", "set LIGHTCONE_SCRATCH to a directory on a file system with locks"
    place = context.scratch / ".lightcone"
    path = place / "doctor.lock"
    lock = Lock(path)
    try:
        if not lock.acquire(timeout=5.0):
            return Check(name, Verdict.FAILURE, f"{path} cannot be locked", remedy)
        try:
            ways = [path, *filter(None, [alternative_path(path)])]
            free = [way for way in ways if not _is_held(way)]
        finally:
            lock.release()
    except (LightconeError, OSError) as error:
        return Check(name, Verdict.FAILURE, str(error), remedy)
    if free:
        found = f"two processes got the same lock at once, the second as {free[0]}"
        return Check(name, Verdict.FAILURE, found, remedy)
    found = f"those on {place} ({file_system(place) or 'its file system'}) exclude other processes"
    by_way_of = f", also as {ways[1].parent}" if len(ways) > 1 else ""
    return Check(name, Verdict.OK, found + by_way_of)


def _is_held(path: Path) -> bool:
    """Whether another process is kept from taking the lock."""
    other = [sys.executable, "-I", "-S", "-c", _TRY_TO_LOCK, str(path)]
    return subprocess.run(other, stderr=subprocess.DEVNULL, check=False).returncode == _HELD


def _disk(context: Context) -> Check:
    place = _nearest(context.scratch)
    free = shutil.disk_usage(place).free
    found = f"{format_bytes(free)} free for {context.scratch}"
    remedy = f"make room, or {_ELSEWHERE}"
    try:
        # What there is need not be what this user's quota lets him have.
        with tempfile.TemporaryFile(dir=place) as sample:
            sample.write(b"\0" * _SAMPLE)
            sample.flush()
            os.fsync(sample.fileno())
    except OSError as error:
        found = f"nothing can be written to {place} ({error.strerror})"
        return Check("disk", Verdict.FAILURE, found, remedy)
    if free < _ENOUGH_DISK:
        return Check("disk", Verdict.WARNING, found, remedy)
    return Check("disk", Verdict.OK, found)


def _nearest(path: Path) -> Path:
    """The directory, or the nearest above it that is there."""
    return next(each for each in (path, *path.parents) if os.path.isdir(each))


def _clock(context: Context) -> Check:
    """The times of files are compared with each other and, where a file has none, with ours."""
    place = _nearest(context.scratch)
    try:
        before = time.time()
        with tempfile.TemporaryFile(dir=place) as sample:
            theirs = os.fstat(sample.fileno()).st_mtime
    except OSError as error:
        found = f"not compared with that of {place} ({error.strerror})"
        return Check("clock", Verdict.OK, found)
    ahead = theirs - before
    if abs(ahead) < _SKEW:
        return Check("clock", Verdict.OK, f"as that of the file system of {place}")
    how = "ahead of" if ahead > 0 else "behind"
    found = f"that of the file system of {place} is {format_seconds(abs(ahead))} {how} this host's"
    return Check("clock", Verdict.WARNING, found, "have both set by the same time server")


def _containers(context: Context) -> Check:
    """Whether what the project at ``context`` declares can be run, and what would run it."""
    name = "containers"
    found = [each for each in Runtime if shutil.which(each) is not None]
    if not found:
        wanting = _wanting(context)
        if not wanting:
            return Check(name, Verdict.OK, "no runtime for them, and no output here that needs one")
        told = f"no runtime for them, and {wanting} of the outputs here need one"
        return Check(name, Verdict.WARNING, told, "install apptainer or podman, or load its module")
    told = f"{_described(found[0])} runs them"
    if len(found) > 1:
        told += f"; {', '.join(map(_described, found[1:]))} would, were it the first found"
    if found[0] is Runtime.DOCKER and run_quiet("docker", "info") is None:
        told = f"{_described(found[0])} would run them, and its engine does not answer"
        return Check(name, Verdict.WARNING, told, "start it, or install apptainer or podman")
    return Check(name, Verdict.OK, told)


def _described(runtime: Runtime) -> str:
    number = re.search(r"\d+(\.\d+)+", run_quiet(runtime, "--version") or "")
    return f"{runtime} {number[0]}" if number else f"{runtime}, which does not tell its version,"


def _wanting(context: Context) -> int:
    """How many outputs declare a container; 0 outside a project, or in a broken one."""
    if not (context.root / SPEC_FILE).is_file():
        return 0
    try:
        outputs = load_outputs(context.root, context.settings)
    except LightconeError:
        return 0
    return len({output.id for output in outputs if output.container})
