"""What of this host may end a session early, or leave it too little: its limits and its habits."""

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

__all__ = ["ROOT", "Check", "Verdict", "check_host", "cleaning", "text_of"]


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


def cleaning(root: Path, place: Path) -> Iterator[tuple[str, Path, float]]:
    """Who removes what is at ``place``, from where, and from which age on, in seconds.

    The system's settings are looked for below ``root``.
    """
    lines = list(_lines_of_tmpfiles(root))
    spared = [words[1] for words in lines if words[0][:1] in "xX"]
    if not any(fnmatch(str(each), mask) for each in (place, *place.parents) for mask in spared):
        for words in lines:
            cleaned = words[0][:1] in "dDevqQ" and place.is_relative_to(words[1])
            if cleaned and len(words) > 5 and words[5] not in ("-", ""):
                yield "systemd-tmpfiles", Path(words[1]), _seconds(words[5].rpartition(":")[2])
    settings = text_of(root / "etc/tmpreaper.conf")
    if (root / "etc/cron.daily/tmpreaper").exists() and "\nSHOWWARNING=true" not in f"\n{settings}":
        age = re.search(r"^\s*TMPREAPER_TIME=['\"]?(\w+)", settings, re.MULTILINE)
        dirs = re.search(r"^\s*TMPREAPER_DIRS=['\"]?([^'\"\n]*)", settings, re.MULTILINE)
        for where in map(Path, (dirs[1] if dirs else "/tmp").split()):  # noqa: S108 (compared)
            if place.is_relative_to(where):
                yield "tmpreaper", where, _seconds(age[1] if age else "7d")
    for line in text_of(root / "etc/cron.daily/tmpwatch").splitlines():
        for unit, *paths in _ages(line.split()):
            for where in map(Path, paths):
                if where.is_absolute() and place.is_relative_to(where):
                    # Its own unit is the hour.
                    yield "tmpwatch", where, _seconds(unit if unit[-1].isalpha() else f"{unit}h")


def _ages(words: list[str]) -> Iterator[list[str]]:
    """Each word that is an age, with the words that follow it."""
    for position, word in enumerate(words):
        if re.fullmatch(r"\d+[dhms]?", word):
            yield words[position:]


def _lines_of_tmpfiles(root: Path) -> Iterator[list[str]]:
    seen: set[str] = set()
    for directory in _TMPFILES:
        for file in sorted((root / directory).glob("*.conf")):
            # One in /etc replaces the one of the same name that came with the system.
            if file.name not in seen:
                seen.add(file.name)
                lines = (line.split() for line in text_of(file).splitlines())
                yield from (words for words in lines if len(words) > 1 and words[0][0] != "#")


def _seconds(text: str) -> float:
    """A time span as systemd writes it, such as ``10d`` or ``1h 30min``; without unit, seconds."""
    parts = _TIME.findall(text.lower())
    return float(sum(int(number) * _TIME_UNITS.get(unit or "s", 1) for number, unit in parts))


def text_of(file: Path) -> str:
    """What a file of settings says; "" where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


ROOT = Path("/")

"""Where the system's own settings are looked for."""

_ENOUGH_MEMORY = 1 << 30

_ENOUGH_FILES = 1024

_ENOUGH_PROCESSES = 512

# A session touches its files more often than that.
_SHORT = 3600.0

_LOGIND = tuple(f"{place}/systemd/logind.conf.d" for place in ("etc", "run", "usr/lib"))


def check_host(context: Context) -> list[Check]:
    """Every check of the host; none changes anything."""
    checks: list[Callable[[Context], Check]] = [
        _cleaners,
        _logout,
        _memory,
        _open_files,
        _processes,
        _slurm,
        _hooks,
    ]
    return [check(context) for check in checks]


def _cleaners(context: Context) -> Check:
    """Programs that remove from /tmp and /var/tmp what has not been used for long."""
    name, found = "cleaners", []
    for place, variable in (
        (context.runtime, "LIGHTCONE_RUNTIME_DIR"),
        (context.scratch, "LIGHTCONE_SCRATCH"),
    ):
        for who, where, age in cleaning(ROOT, place):
            told = f"{who} removes from {where} what is older than {format_seconds(age)}"
            if age < _SHORT:
                return Check(name, Verdict.WARNING, told, f"set {variable} to a path elsewhere")
            found.append(told)
    if found:
        return Check(name, Verdict.OK, f"{'; '.join(found)}; a session keeps its own files younger")
    return Check(name, Verdict.OK, "nothing is known to remove by age what a session needs")


def _logout(context: Context) -> Check:
    """Whether logind ends what a user leaves running; the last file that says so has the word."""
    name, killing = "logout", ""
    by_name: dict[str, Path] = {}
    for directory in reversed(_LOGIND):
        by_name |= {file.name: file for file in (ROOT / directory).glob("*.conf")}
    first = (ROOT / "usr/lib/systemd/logind.conf", ROOT / "etc/systemd/logind.conf")
    for file in (*first, *(by_name[key] for key in sorted(by_name))):
        for value in re.findall(r"^\s*KillUserProcesses\s*=\s*(\w+)", text_of(file), re.MULTILINE):
            killing = str(file) if value.lower() in ("yes", "true", "1", "on") else ""
    if not killing:
        return Check(name, Verdict.OK, "programs go on after logout")
    if os.getuid() == 0:
        return Check(name, Verdict.OK, "programs end at logout, but not those of root")
    if (ROOT / "var/lib/systemd/linger" / _user()).exists():
        return Check(name, Verdict.OK, "programs would end at logout, but this user lingers")
    found = f"{killing} has every program of a user ended at logout"
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
    if memory < _ENOUGH_MEMORY:
        return Check("memory", Verdict.WARNING, found, "use a larger machine, or ask for more")
    return Check("memory", Verdict.OK, found)


def _open_files(context: Context) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_limit(soft)} a process, {_limit(hard)} at most"
    if hard != resource.RLIM_INFINITY and hard < _ENOUGH_FILES:
        return Check("open files", Verdict.WARNING, found, "have the limit raised (ulimit -Hn)")
    return Check("open files", Verdict.OK, found)


def _processes(context: Context) -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    found = f"{_limit(soft)} processes and threads for this user"
    if soft != resource.RLIM_INFINITY and soft < _ENOUGH_PROCESSES:
        return Check("processes", Verdict.WARNING, found, "have the limit raised (ulimit -u)")
    return Check("processes", Verdict.OK, found)


def _limit(value: int) -> str:
    return "any number" if value == resource.RLIM_INFINITY else str(value)


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
    """Whether an agent's settings have it release its session when it leaves."""
    name = "hooks"
    places = [Path(os.path.expanduser("~")), context.root]
    files = [place / ".claude" / "settings.json" for place in places]
    files.append(context.root / ".claude" / "settings.local.json")
    for file in files:
        try:
            table = read_object(file)
            programs = list(_hook_programs(table))
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


def _hook_programs(table: dict[str, Any]) -> Iterator[str]:
    """The program of every hook for an agent's leaving that is one of ours."""
    for plugin, enabled in table.get("enabledPlugins", {}).items():
        if enabled and plugin.startswith("lightcone"):
            yield "lc"
    for group in table.get("hooks", {}).get("SessionEnd", []):
        for hook in group.get("hooks", []):
            words = [*shlex.split(hook.get("command", "")), *hook.get("args", [])]
            for position in range(1, len(words) - 1):
                if words[position : position + 2] == ["hook", "session-end"]:
                    yield words[position - 1]
