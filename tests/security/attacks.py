"""What somebody may try on a session: run by him as ``python - NAME FACTS < attacks.py``.

Each attack prints, as a JSON list, what it has achieved. What is refused is an ``OSError``;
anything else that goes wrong is a fault of the attack, and ends it with a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PATIENCE = 5.0
_PTRACE_SEIZE = 0x4206


def engine(facts: dict[str, Any]) -> Iterator[str]:
    """Speak the engine's own protocol: in the clear, and with a key, one's own or a given one."""
    from distributed import Security
    from distributed.core import rpc

    from lightcone.session.spawn import create_key

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    own = Path(tempfile.mkdtemp()) / "own.pem"
    create_key(own)

    async def ask(address: str, security: Security) -> None:
        arguments = security.get_connection_args("client")
        if arguments.get("ssl_context") is not None and not facts.get("key"):
            # Whoever attacks does not mind with whom he speaks.
            arguments["ssl_context"].verify_mode = ssl.CERT_NONE
        # Who has the key is let in, however long it takes; nobody else ever is.
        patience = 6 * _PATIENCE if address.startswith("tls") and facts.get("key") else _PATIENCE
        async with rpc(address, timeout=patience, connection_args=arguments) as remote:
            await asyncio.wait_for(remote.identity(), patience)

    key = facts.get("key", str(own))
    with_key = Security(
        tls_ca_file=key, tls_client_cert=key, tls_client_key=key, require_encryption=True
    )
    for port in facts["ports"]:
        for scheme, security in (("tcp", Security()), ("tls", with_key)):
            address = f"{scheme}://127.0.0.1:{port}"
            with contextlib.suppress(OSError):
                asyncio.run(ask(address, security))
                yield f"{address} answered"


def web(facts: dict[str, Any]) -> Iterator[str]:
    """Ask every port for a page."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    for port in facts["ports"]:
        for secure in (False, True):
            for page in ("/", "/health", "/status", "/metrics", "/json/identity.json"):
                connection = (
                    http.client.HTTPSConnection(
                        "127.0.0.1", port, timeout=_PATIENCE, context=trusting
                    )
                    if secure
                    else http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
                )
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection.request("GET", page)
                    yield f"{page} on {port}: {connection.getresponse().status}"
                connection.close()


def sockets(facts: dict[str, Any]) -> Iterator[str]:
    """Use the sockets."""
    for path in facts["sockets"]:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            yield f"connected to {path}"
        if path.endswith("/tmux"):
            commands = [["list-sessions"], ["-C", "attach-session"], ["show-environment", "-g"]]
            if not facts.get("harmless"):
                commands += [["new-window", "-d", "touch owned"], ["kill-session"]]
            for command in commands:
                result = subprocess.run(
                    ["tmux", "-S", path, *command],
                    capture_output=True,
                    timeout=12 * _PATIENCE,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
                if result.returncode == 0:
                    yield f"{command} on {path}"


def read(facts: dict[str, Any]) -> Iterator[str]:
    """Read every file, and list every directory."""
    for path in facts["files"]:
        with contextlib.suppress(OSError):
            if os.path.isdir(path):
                os.listdir(path)
            else:
                with open(path, "rb") as file:
                    file.read(1)
            yield f"read {path}"


def write(facts: dict[str, Any]) -> Iterator[str]:
    """Change, replace and remove every file, and add to every directory."""
    for path in facts["files"]:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_RDWR))
            yield f"opened {path}"
        for action, arguments in (
            (os.chmod, (path, 0o777)),
            (os.rename, (path, f"{path}.stolen")),
            (os.symlink, ("/etc/passwd", f"{path}/planted")),
            (os.link, (path, os.path.join(tempfile.gettempdir(), "linked"))),
            (os.unlink, (path,)),
            (os.utime, (path,)),
        ):
            with contextlib.suppress(OSError):
                action(*arguments)
                yield f"{action.__name__} {path}"


def processes(facts: dict[str, Any]) -> Iterator[str]:
    """Look into the processes, and end them."""
    ptrace = getattr(ctypes.CDLL(None, use_errno=True), "ptrace")  # noqa: B009 (of the library)
    for pid in facts["pids"]:
        for name in ("environ", "mem", "maps"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                file.read(0 if name == "mem" else 1)
                yield f"read {name} of {pid}"
        with contextlib.suppress(OSError):
            os.listdir(f"/proc/{pid}/fd")
            yield f"listed the files of {pid}"
        if ptrace(_PTRACE_SEIZE, pid, 0, 0) == 0:
            yield f"traced {pid}"
        for signum in () if facts.get("harmless") else (signal.SIGHUP, signal.SIGTERM):
            with contextlib.suppress(PermissionError):
                os.kill(pid, signum)
                yield f"sent {signum.name} to {pid}"


def command_lines(facts: dict[str, Any]) -> Iterator[str]:
    """Look for the secrets on the command line of every process of the machine."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if int(entry.name) != os.getpid():
                for secret in facts["secrets"]:
                    if secret.encode() in line:
                        yield f"{entry.name}: {line!r}"


def search(facts: dict[str, Any]) -> Iterator[str]:
    """Look for the secrets in every file below some places."""
    for place in facts["places"]:
        for directory, _, names in os.walk(place):
            for name in names:
                path = os.path.join(directory, name)
                with contextlib.suppress(OSError):
                    if os.path.isfile(path) and not os.path.islink(path):
                        content = Path(path).read_bytes()
                        if any(secret.encode() in content for secret in facts["secrets"]):
                            yield path


_ATTACKS = (engine, web, sockets, read, write, processes, command_lines, search)


if __name__ == "__main__":
    attack = {each.__name__: each for each in _ATTACKS}[sys.argv[1]]
    tempfile.tempdir = os.environ["HOME"]
    print(json.dumps(list(attack(json.loads(sys.argv[2])))))
