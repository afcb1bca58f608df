"""What a session listens on, as the kernel has it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_INTERNET = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "packet")
_LISTENING = "0A"
_ACCEPTS = 0x10000
_LOOPBACK = "0100007F" if sys.byteorder == "little" else "7F000001"


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    names = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as no listener is
            names.append(os.readlink(each))
    return {found[1] for name in names if (found := re.fullmatch(r"socket:\[(\d+)\]", name))}


def _listens(pid: int) -> Iterator[tuple[str, str]]:
    """The kind and the local address of everything on which the process takes connections."""
    own = _sockets(pid)
    for kind in _INTERNET:
        table = Path(f"/proc/{pid}/net/{kind}")
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            words = line.split()
            if kind == "packet":
                if words[8] in own:
                    yield kind, ""
            elif words[9] in own and (words[3] == _LISTENING or not kind.startswith("tcp")):
                yield kind, words[1].partition(":")[0]
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[6] in own and int(words[3], 16) & _ACCEPTS:
            yield "unix", words[7] if len(words) > 7 else ""


def test_two_ports_on_loopback_and_two_sockets(shared: Sandbox) -> None:
    """While a command runs, so that its process and its caller's are looked at too."""
    command = shared.popen(
        "exec", "--", "sh", "-c", "echo begun; exec sleep 1000", stderr=subprocess.STDOUT
    )
    assert command.stdout is not None
    assert command.stdout.readline() == b"begun\n"
    pids = [process.pid for process in shared.processes()]
    found = Counter(each for pid in pids for each in set(_listens(pid)))
    command.terminate()
    command.wait(timeout=60)
    assert len(pids) >= 8
    runtime = shared.runtime / shared.status()["key"]
    sockets = {("unix", str(runtime / name)): 1 for name in ("control", "tmux")}
    assert found == {("tcp", _LOOPBACK): 2, **sockets}
