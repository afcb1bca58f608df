"""This Python and what it imports, for users who may not enter the directories they lie in."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import lightcone
from tests.helpers import clean_environment
from tests.run.disks import bound

__all__ = ["Interpreter", "for_all"]

_FOR_OTHERS = 0o005
_VERSION = f"python3.{sys.version_info.minor}"


@dataclass(frozen=True)
class Interpreter:
    """A Python that has lightcone: its path, and the variables without which it does not start."""

    program: str = sys.executable
    env: Mapping[str, str] = field(default_factory=dict)

    def refusal(self, uid: int) -> str:
        """Why the programs of a user cannot be run by it, or ""."""
        try:
            result = subprocess.run(
                [self.program, "-P", "-c", "import distributed, lightcone.__main__"],
                cwd="/",
                env={**clean_environment(), **self.env},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                user=uid,
                group=uid,
                extra_groups=[],
            )
        except PermissionError as error:
            return str(error)
        if result.returncode == 0:
            return ""
        return (result.stderr.splitlines() or [f"exit code {result.returncode}"])[-1]


@contextlib.contextmanager
def for_all() -> Iterator[Interpreter]:
    """This Python, its packages and lightcone where all users may read them, until the end.

    They are mounted there, read-only, or copied where their modes keep others out, and an
    environment of its own joins them. A test that asks for it where nothing can be mounted does
    without.
    """
    place = Path(tempfile.mkdtemp(prefix="lc-python-", dir="/tmp"))
    own, base, joined = (place / name for name in ("own", "base", "joined"))
    shown = {own / lightcone.__name__: Path(lightcone.__file__).parent}
    packages = [own]
    for each in (path for path in sys.path if path.endswith(("/site-packages", "/dist-packages"))):
        packages.append(place / str(len(packages)))
        shown[packages[-1]] = Path(each)
    shown[base] = Path(sys.base_prefix)
    umask = os.umask(0o022)
    try:
        place.chmod(0o755)
        for directory in shown:
            directory.mkdir(parents=True)
        _join(joined, base, packages)
    finally:
        os.umask(umask)
    try:
        with contextlib.ExitStack() as mounts:
            for where, what in shown.items():
                if what.stat().st_mode & _FOR_OTHERS == _FOR_OTHERS:
                    mounts.enter_context(bound(what, where, read_only=True))
                else:
                    mounts.enter_context(_copied(what, where))
            libraries = {"LD_LIBRARY_PATH": str(joined / "lib")}
            yield Interpreter(str(joined / "bin" / "python"), libraries)
    finally:
        shutil.rmtree(joined)
        # One by one: all at once would take with it what is still mounted.
        for directory in (*shown, own, place):
            directory.rmdir()


@contextlib.contextmanager
def _copied(what: Path, where: Path) -> Iterator[None]:
    """The tree ``what`` in the empty directory ``where``, for all users to read."""
    try:
        shutil.copytree(what, where, symlinks=True, dirs_exist_ok=True)
        for directory, _, names in os.walk(where):
            for path in (Path(directory), *(Path(directory, name) for name in names)):
                if not path.is_symlink():
                    # Whoever may run it is everybody.
                    mode = path.stat().st_mode & 0o777
                    path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
        yield
    finally:
        shutil.rmtree(where)
        where.mkdir()


def _join(place: Path, base: Path, packages: Iterable[Path]) -> None:
    """Make an environment at ``place`` of a Python that will be at ``base``."""
    library = place / "lib"
    site = library / _VERSION / "site-packages"
    for directory in (place / "bin", site):
        directory.mkdir(parents=True)
    (place / "bin" / "python").symlink_to(base / "bin" / _VERSION)
    (place / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\n")
    (site / "packages.pth").write_text("".join(f"{each}\n" for each in packages))
    # A shared Python looks for its library where that lies for root, unless it is told.
    for each in Path(sys.base_prefix, "lib").glob("libpython*.so*"):
        (library / each.name).symlink_to(base / "lib" / each.name)
