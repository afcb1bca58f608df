"""Users other than the one that runs the tests: who owns a session, and who is after it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.helpers import Sandbox, clean_environment
from tests.security.interpreter import Interpreter

__all__ = ["Owned", "Stranger", "User", "as_user", "default_places", "spare_user"]

_FIRST_SPARE = 20_000
_MANY = 20_000


def as_user(uid: int) -> dict[str, Any]:
    """The options of :class:`subprocess.Popen` that make a program a user's."""
    return {} if uid == os.getuid() else {"user": uid, "group": uid, "extra_groups": []}


def default_places(uid: int) -> tuple[Path, Path]:
    """Where sockets and scratch of a user are unless he says otherwise."""
    return Path(f"/tmp/lightcone-{uid}"), Path(f"/var/tmp/lightcone-{uid}")


def spare_user(nth: int = 0) -> int:
    """A user id that is nobody's, and another one for each process of tests and ``nth``."""
    uid = _FIRST_SPARE + (10 * os.getpid() + nth) % _MANY
    while _is_taken(uid):
        uid += 1
    return uid


def _is_taken(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return any(os.path.lexists(place) for place in default_places(uid))
    return True


@dataclass(frozen=True)
class User:
    """Somebody with a Python that he can run."""

    uid: int
    python: Interpreter


class Stranger:
    """A user without any right of ours, who knows everything about a session but its key."""

    def __init__(self, user: User) -> None:
        self.uid = user.uid
        self.python = user.python
        self.home = Path(tempfile.mkdtemp(prefix="lc-stranger-", dir="/tmp"))
        os.chown(self.home, self.uid, self.uid)

    def attack(self, name: str, facts: Mapping[str, Any]) -> list[str]:
        """What this user achieves with one of the attacks of ``attacks.py``."""
        with open(Path(__file__).with_name("attacks.py"), "rb") as program:
            result = subprocess.run(
                [self.python.program, "-P", "-", name, json.dumps(facts)],
                cwd="/",
                env={**clean_environment(), **self.python.env, "HOME": str(self.home)},
                stdin=program,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                **as_user(self.uid),
            )
        assert result.returncode == 0, result.stderr
        achieved: list[str] = json.loads(result.stdout.splitlines()[-1])
        return achieved

    def close(self) -> None:
        """Remove what this user had."""
        shutil.rmtree(self.home, ignore_errors=True)


class Owned(Sandbox):
    """A sandbox of a user's own, which others can look into as far as the session lets them."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.uid = uid = user.uid
        self.owner = as_user(uid)
        self.interpreter = user.python.program
        super().__init__()
        self.env |= user.python.env
        for name in ("USER", "LOGNAME"):
            self.env.pop(name, None)
        self.base.chmod(0o755)
        for path in (self.base, *self.base.rglob("*")):
            os.chown(path, uid, uid)

    def use_default_places(self) -> None:
        """Use the places that are used when nothing is said."""
        for name in ("LIGHTCONE_RUNTIME_DIR", "LIGHTCONE_SCRATCH"):
            del self.env[name]
        self.runtime, self.scratch = default_places(self.uid)

    def facts(self) -> dict[str, Any]:
        """What there is of the living session, for one who attacks it."""
        programs = self.programs()
        files = [str(path) for place in self._places() for path in (place, *place.rglob("*"))]
        return {
            "address": self.status()["address"],
            "pids": list(self._lasting()),
            "ports": [port for pid in programs.values() for port in _ports(pid)],
            "files": files,
            "sockets": [path for path in files if path.endswith(("/control", "/tmux"))],
            "key": str(next((self.state() / "tls").iterdir())),
        }

    def _lasting(self) -> Iterator[int]:
        """The processes that stay, whoever attaches: not what the window for viewers runs."""
        waiting = self.waiting_for_viewers()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.ppid() not in waiting:
                    yield process.pid

    def _places(self) -> list[Path]:
        return [*(path for path in self.runtime.iterdir()), self.scratch / ".lightcone"]


def _ports(pid: int) -> list[int]:
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]
