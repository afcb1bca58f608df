"""Checks of this host: its limits, file cleaners, logout, SLURM and agent hooks."""

from __future__ import annotations

import getpass
import os
import re
import resource
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lightcone.project.context import Context
from lightcone.system.files import read_object
from lightcone.system.processes import run_quiet
from lightcone.system.units import format_bytes, format_seconds
from lightcone.worker.observation import why_not_observed

__all__ = ["ROOT", "Check", "Verdict", "check_host", "find_cleaners", "read_text"]


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Check:
    """The verdict and finding of one check, and the remedy if not ok."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


_TMPFILES = ("etc/tmpfiles.d", "run/tmpfiles.d", "usr/local/lib/tmpfiles.d", "usr/lib/tmpfiles.d")

_TIME_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}

_TIME = re.compile(r"(\d+)\s*([a-z]*)")


def find_cleaners(root: Path, path: Path) -> Iterator[tuple[str, Path, float]]:
    """Cleaners of old files at ``path``: each with directory and age in seconds.

    The system's settings are looked for below ``root``.
    """
    lines = list(_tmpfiles_lines(root))
    excluded = [fields[1] for fields in lines if fields[0][:1] in "xX"]
    if not any(fnmatch(str(each), mask) for each in (path, *path.parents) for mask in excluded):
        for fields in lines:
            cleaned = fields[0][:1] in "dDevqQ" and path.is_relative_to(fields[1])
            if cleaned and len(fields) > 5 and fields[5] not in ("-", ""):
                yield "systemd-tmpfiles", Path(fields[1]), _parse_span(fields[5].rpartition(":")[2])
    settings = read_text(root / "etc/tmpreaper.conf")
    if (root / "etc/cron.daily/tmpreaper").exists() and "\nSHOWWARNING=true" not in f"\n{settings}":
        age = re.search(r"^\s*TMPREAPER_TIME=['\"]?(\w+)", settings, re.MULTILINE)
        dirs = re.search(r"^\s*TMPREAPER_DIRS=['\"]?([^'\"\n]*)", settings, re.MULTILINE)
        for directory in map(Path, (dirs[1] if dirs else "/tmp").split()):  # noqa: S108 (compared)
            if path.is_relative_to(directory):
                yield "tmpreaper", directory, _parse_span(age[1] if age else "7d")
    for line in read_text(root / "etc/cron.daily/tmpwatch").splitlines():
        for unit, *paths in _ages(line.split()):
            for directory in map(Path, paths):
                if directory.is_absolute() and path.is_relative_to(directory):
                    # Its own unit is the hour.
                    yield (
                        "tmpwatch",
                        directory,
                        _parse_span(unit if unit[-1].isalpha() else f"{unit}h"),
                    )


def _ages(words: list[str]) -> Iterator[list[str]]:
    """Each word that is an age, with the words that follow it."""
    for position, word in enumerate(words):
        if re.fullmatch(r"\d+[dhms]?", word):
            yield words[position:]


def _tmpfiles_lines(root: Path) -> Iterator[list[str]]:
    seen: set[str] = set()
    for directory in _TMPFILES:
        for file in sorted((root / directory).glob("*.conf")):
            # One in /etc replaces the one of the same name that came with the system.
            if file.name not in seen:
                seen.add(file.name)
                lines = (line.split() for line in read_text(file).splitlines())
                yield from (fields for fields in lines if len(fields) > 1 and fields[0][0] != "#")


def _parse_span(text: str) -> float:
    """Parse a time span of systemd, such as ``10d`` or ``1h 30min``, into seconds.

    A number without a unit is in seconds.
    """
    amounts = _TIME.findall(text.lower())
    return float(sum(int(number) * _TIME_UNITS.get(unit or "s", 1) for number, unit in amounts))


def read_text(file: Path) -> str:
    """The text of a settings file; "" where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


ROOT = Path("/")

"""The directory below which the system's own settings are."""

_MIN_MEMORY = 1 << 30

_MIN_OPEN_FILES = 1024

_MIN_PROCESSES = 512

# A session touches its files more often than that.
_SHORT_AGE = 3600.0

_LOGIND = tuple(f"{place}/systemd/logind.conf.d" for place in ("etc", "run", "usr/lib"))


def check_host(context: Context) -> list[Check]:
    """Run every check of the host; none changes anything."""
    checks: list[Callable[[Context], Check]] = [
        _cleaners,
        _logout,
        _memory,
        _open_files,
        _processes,
        _observation,
        _slurm,
        _hooks,
    ]
    return [check(context) for check in checks]


def _cleaners(context: Context) -> Check:
    """Check for programs that remove old files from /tmp and /var/tmp."""
    name, found = "cleaners", []
    for place, variable in (
        (context.runtime, "LIGHTCONE_RUNTIME_DIR"),
        (context.scratch, "LIGHTCONE_SCRATCH"),
    ):
        for cleaner, directory, age in find_cleaners(ROOT, place):
            text = f"{cleaner} removes from {directory} what is older than {format_seconds(age)}"
            if age < _SHORT_AGE:
                return Check(name, Verdict.WARNING, text, f"set {variable} to a path elsewhere")
            found.append(text)
    if found:
        return Check(name, Verdict.OK, f"{'; '.join(found)}; a session keeps its own files younger")
    return Check(name, Verdict.OK, "nothing is known to remove by age what a session needs")


def _logout(context: Context) -> Check:
    """Check whether logind ends a user's processes at logout; the last setting wins."""
    name, killed_by = "logout", ""
    by_name: dict[str, Path] = {}
    for directory in reversed(_LOGIND):
        by_name |= {file.name: file for file in (ROOT / directory).glob("*.conf")}
    main_files = (ROOT / "usr/lib/systemd/logind.conf", ROOT / "etc/systemd/logind.conf")
    for file in (*main_files, *(by_name[key] for key in sorted(by_name))):
        for value in re.findall(
            r"^\s*KillUserProcesses\s*=\s*(\w+)", read_text(file), re.MULTILINE
        ):
            killed_by = str(file) if value.lower() in ("yes", "true", "1", "on") else ""
    if not killed_by:
        return Check(name, Verdict.OK, "programs go on after logout")
    if os.getuid() == 0:
        return Check(name, Verdict.OK, "programs end at logout, but not those of root")
    if (ROOT / "var/lib/systemd/linger" / _user()).exists():
        return Check(name, Verdict.OK, "programs would end at logout, but this user lingers")
    found = f"{killed_by} has every program of a user ended at logout"
    return Check(name, Verdict.WARNING, found, "run 'loginctl enable-linger'")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


def _memory(context: Context) -> Check:
    try:
        # As the session sees it: what the control groups leave is less than the machine has.
        from distributed.system import MEMORY_LIMIT as memory
    except Exception:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{format_bytes(memory)}, of which a session takes about 150 MiB"
    if memory < _MIN_MEMORY:
        return Check("memory", Verdict.WARNING, found, "use a larger machine, or ask for more")
    return Check("memory", Verdict.OK, found)


def _open_files(context: Context) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_format_limit(soft)} a process, {_format_limit(hard)} at most"
    if hard != resource.RLIM_INFINITY and hard < _MIN_OPEN_FILES:
        return Check("open files", Verdict.WARNING, found, "have the limit raised (ulimit -Hn)")
    return Check("open files", Verdict.OK, found)


def _processes(context: Context) -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    found = f"{_format_limit(soft)} processes and threads for this user"
    if soft != resource.RLIM_INFINITY and soft < _MIN_PROCESSES:
        return Check("processes", Verdict.WARNING, found, "have the limit raised (ulimit -u)")
    return Check("processes", Verdict.OK, found)


def _format_limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else str(value)


def _observation(context: Context) -> Check:
    """Check whether recipes can be observed here."""
    name, is_wanted = "observation", context.settings.observe
    reason = why_not_observed(None)
    if not reason:
        more = "" if is_wanted else "; 'observe = true' in lightcone.toml has them observed"
        return Check(name, Verdict.OK, f"strace can watch which files recipes use{more}")
    found = f"no recipe can be observed: {reason}"
    if not is_wanted:
        return Check(name, Verdict.OK, found)
    remedy = "install strace 5.3 or newer, or set 'observe = false' in lightcone.toml"
    return Check(name, Verdict.WARNING, found, remedy)


def _slurm(context: Context) -> Check:
    name, job = "slurm", os.environ.get("SLURM_JOB_ID", "")
    missing = [each for each in ("squeue", "srun", "scontrol") if shutil.which(each) is None]
    if job and missing:
        found = f"in job {job}, and {' and '.join(missing)} not on the PATH"
        return Check(name, Verdict.WARNING, found, "load the module that has them")
    if missing:
        return Check(name, Verdict.OK, "not installed, or not on the PATH")
    if job:
        state = run_quiet("squeue", "-h", "-j", job, "-o", "%T")
        if state:
            return Check(name, Verdict.OK, f"in job {job}, {state.lower()}")
        found = f"in job {job}, of which squeue says nothing"
        if state == "":
            return Check(name, Verdict.WARNING, found, "leave this shell: its job has ended")
    elif run_quiet("scontrol", "ping") is not None:
        return Check(name, Verdict.OK, "the controller answers; this is no job")
    else:
        found = "installed, and its controller does not answer"
    return Check(name, Verdict.WARNING, found, "try 'scontrol ping', or ask those who run it")


def _hooks(context: Context) -> Check:
    """Check whether a hook releases the session when an agent leaves."""
    name = "hooks"
    directories = [Path(os.path.expanduser("~")), context.root]
    files = [directory / ".claude" / "settings.json" for directory in directories]
    files.append(context.root / ".claude" / "settings.local.json")
    for file in files:
        try:
            settings = read_object(file)
            programs = list(_hook_programs(settings))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, AttributeError) as error:
            found = f"{file} cannot be read ({error})"
            return Check(name, Verdict.WARNING, found, "repair it, or the agent has no hooks")
        for program in programs:
            if shutil.which(program) is None:
                found = f"{file} has one that calls {program}, which is not on the PATH"
                return Check(name, Verdict.WARNING, found, "give its whole path there")
            return Check(name, Verdict.OK, f"{file} has one that calls lc when an agent leaves")
    idle = format_seconds(context.settings.idle_timeout)
    found = f"not set up: what an agent started ends when it has been idle for {idle}"
    return Check(name, Verdict.OK, found)


def _hook_programs(settings: dict[str, Any]) -> Iterator[str]:
    """The program of every hook of lightcone for an agent's leaving."""
    for plugin, enabled in settings.get("enabledPlugins", {}).items():
        if enabled and plugin.startswith("lightcone"):
            yield "lc"
    for group in settings.get("hooks", {}).get("SessionEnd", []):
        for hook in group.get("hooks", []):
            words = [*shlex.split(hook.get("command", "")), *hook.get("args", [])]
            for position in range(1, len(words) - 1):
                if words[position : position + 2] == ["hook", "session-end"]:
                    yield words[position - 1]
