"""The alternatives, each in an environment of its own, by name from the package registry."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["ALTERNATIVES", "Absent", "Environment", "provide"]

ROOT = Path(__file__).resolve().parent / ".envs"
_PATIENCE = 900.0
# The engine in the version that lc itself is measured with.
ALTERNATIVES = {
    "engine": f"distributed=={version('distributed')}",
    "older": "lightcone-cli==0.4.2",
    "hyperqueue": "hyperqueue",
    "ray": "ray[default]",
}


@dataclass(frozen=True)
class Environment:
    """An alternative that is there to be used: the directory of its programs."""

    programs: Path

    @property
    def python(self) -> str:
        """Its Python."""
        return str(self.programs / "python")


@dataclass(frozen=True)
class Absent:
    """An alternative that could not be installed here; ``why`` says so."""

    why: str


def provide(name: str, say: Callable[[str], None]) -> Environment | Absent:
    """The environment of an alternative, made if it is not there yet."""
    requirement = ALTERNATIVES[name]
    place = ROOT / name
    mark = place / "installed"
    if not (mark.is_file() and mark.read_text() == requirement):
        say(f"installing {requirement}")
        shutil.rmtree(place, ignore_errors=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [*pip, "install", "--quiet", requirement],
        ):
            failure = _run(command)
            if failure:
                return Absent(f"{requirement} could not be installed: {failure}")
        mark.write_text(requirement)
    return Environment(place / "bin")


def _run(command: list[str]) -> str:
    """Run a command; the last line of what it said where it failed, else nothing."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode == 0:
        return ""
    lines = (result.stderr or result.stdout).strip().splitlines() or ["no reason given"]
    return lines[-1]
