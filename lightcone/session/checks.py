"""Whether this machine is fit for sessions: each thing looked at, with what to do about it."""

from __future__ import annotations

import getpass
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lightcone.context import Context
from lightcone.errors import LightconeError
from lightcone.files import Lock
from lightcone.session import tmux
from lightcone.units import format_bytes

__all__ = ["Check", "Verdict", "check_all"]

_ENOUGH_DISK = 1 << 30
_ENOUGH_MEMORY = 1 << 30
_ENOUGH_FILES = 1024
_TMPFILES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/lib/tmpfiles.d")
_LOGIND = (
    "/etc/systemd/logind.conf",
    "/etc/systemd/logind.conf.d",
    "/usr/lib/systemd/logind.conf.d",
)
_HOLD_A_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and what to do where it is not ok."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def check_all(context: Context) -> list[Check]:
    """Every check, none of which changes anything but for a lock file on scratch."""
    checks: list[Callable[[Context], Check]] = [
        _python,
        _terminal_server,
        _directories,
        _locks,
        _temporary_files,
        _logout,
        _disk,
        _memory,
        _open_files,
        _slurm,
    ]
    return [check(context) for check in checks]


def _python(context: Context) -> Check:
    return Check("python", Verdict.OK, f"{sys.version.split()[0]} at {sys.executable}")


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
        return Check(name, Verdict.FAILURE, str(error), "see the sentence")
    return Check(name, Verdict.OK, f"sockets in {context.runtime}, scratch is {context.scratch}")


def _locks(context: Context) -> Check:
    """Locks between two processes, which a file system may refuse though one process gets them."""
    name, remedy = "locks", "set LIGHTCONE_SCRATCH to a directory on a file system with locks"
    path = context.scratch / ".lightcone" / "doctor.lock"
    lock = Lock(path)
    try:
        if not lock.acquire(timeout=5.0):
            return Check(name, Verdict.FAILURE, f"{path} cannot be locked", remedy)
        try:
            other = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _HOLD_A_LOCK, str(path)], check=False
            )
        finally:
            lock.release()
    except (LightconeError, OSError) as error:
        return Check(name, Verdict.FAILURE, str(error), remedy)
    if other.returncode != 3:
        found = f"two processes hold the same lock on {path.parent}"
        return Check(name, Verdict.FAILURE, found, remedy)
    return Check(name, Verdict.OK, f"locks on {path.parent} exclude another process")


def _temporary_files(context: Context) -> Check:
    """Cleaners of /tmp take sockets that have not been used for long."""
    name = "cleaners"
    if not context.runtime.is_relative_to("/tmp"):  # noqa: S108 (compared, not opened)
        return Check(name, Verdict.OK, f"{context.runtime} is not in /tmp")
    seen: set[str] = set()
    for directory in map(Path, _TMPFILES):
        for file in sorted(directory.glob("*.conf")) if directory.is_dir() else ():
            if file.name in seen:
                continue
            seen.add(file.name)
            for line in file.read_text(errors="replace").splitlines():
                words = line.split()
                if len(words) > 5 and words[1] == "/tmp" and words[5] not in ("-", "0"):  # noqa: S108
                    found = f"{file} removes what is older than {words[5]} from /tmp"
                    remedy = "set LIGHTCONE_RUNTIME_DIR to a short path elsewhere"
                    return Check(name, Verdict.WARNING, found, remedy)
    return Check(name, Verdict.OK, "nothing is known to clear /tmp by age")


def _logout(context: Context) -> Check:
    name, killing = "logout", ""
    for place in map(Path, _LOGIND):
        for file in sorted(place.glob("*.conf")) if place.is_dir() else [place]:
            if file.is_file():
                text = file.read_text(errors="replace")
                for value in re.findall(r"^\s*KillUserProcesses\s*=\s*(\w+)", text, re.MULTILINE):
                    killing = str(file) if value.lower() in ("yes", "true", "1", "on") else ""
    if not killing:
        return Check(name, Verdict.OK, "programs go on after logout")
    if (Path("/var/lib/systemd/linger") / getpass.getuser()).exists():
        return Check(name, Verdict.OK, "programs would end at logout, but this user lingers")
    found = f"{killing} ends every program of a user at logout"
    return Check(name, Verdict.WARNING, found, "run 'loginctl enable-linger'")


def _disk(context: Context) -> Check:
    place = next(path for path in (context.scratch, *context.scratch.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{format_bytes(free)} free for {context.scratch}"
    if free < _ENOUGH_DISK:
        return Check(
            "disk", Verdict.WARNING, found, "make room, or set LIGHTCONE_SCRATCH elsewhere"
        )
    return Check("disk", Verdict.OK, found)


def _memory(context: Context) -> Check:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{format_bytes(memory)}, of which a session takes about 150 MiB"
    verdict = Verdict.OK if memory >= _ENOUGH_MEMORY else Verdict.WARNING
    return Check("memory", verdict, found, "" if verdict is Verdict.OK else "use a larger machine")


def _open_files(context: Context) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files a process, {hard} at most"
    if hard != resource.RLIM_INFINITY and hard < _ENOUGH_FILES:
        return Check("open files", Verdict.WARNING, found, "have the limit raised (ulimit -Hn)")
    return Check("open files", Verdict.OK, found)


def _slurm(context: Context) -> Check:
    name = "slurm"
    if os.environ.get("SLURM_JOB_ID"):
        found = f"in job {os.environ['SLURM_JOB_ID']}, of which a session uses this host alone"
        return Check(name, Verdict.WARNING, found, "expect no more than this host's processors")
    has = shutil.which("squeue") is not None
    return Check(name, Verdict.OK, "installed, and this is no job" if has else "not installed")
