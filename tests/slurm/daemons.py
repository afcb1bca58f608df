"""The programs that make a cluster: how each is told what it is, started and ended."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import wait_until
from tests.slurm.place import Network, Place, find

__all__ = ["Daemon", "Layout", "Shape"]

# slurmd takes a GPU only with a character device of its own; any such device will do.
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_FREEZER = Path("/sys/fs/cgroup/freezer/cgroup.procs")
# Runs in a node's namespaces: a name, name service, boot id and local disk of its own.
_BECOME = """\
hostname "$1" && mount --bind "$2/hosts" /etc/hosts &&
mount --bind "$2/disk/$1/boot_id" /proc/sys/kernel/random/boot_id &&
mount --bind "$2/disk/$1/local" "$2/local" && shift 2 && exec "$@"
"""


@dataclass(frozen=True)
class Shape:
    """What a lab is to be; see :class:`tests.slurm.lab.Lab`."""

    nodes: int = 2
    cpus: int = 4
    memory: int = 8000
    gpus: int = 0
    netns: bool = False
    proctrack: str = "auto"
    kill_wait: int = 3
    extra: str = ""


class Layout:
    """A lab's directory: the configuration in it, and the command line of each daemon."""

    def __init__(self, base: Path, place: Place, shape: Shape) -> None:
        self.base = base
        self.shape = shape
        self.port = place.port
        self.configuration = base / "slurm.conf"
        # Unique on this machine, as namespaces and control groups are named after them.
        self.nodes = [f"n{place.number}-{index}" for index in range(1, shape.nodes + 1)]
        self.network = Network(place.number, self.nodes) if shape.netns else None
        proctrack = shape.proctrack
        if proctrack == "auto":
            own = os.geteuid() == 0 and os.access(_FREEZER, os.W_OK)
            proctrack = "cgroup" if own else "linuxproc"
        self.proctrack = proctrack

    def write(self) -> None:
        """Make the directory what the daemons expect."""
        base = self.base
        for name in ("state", "spool", "log", "munge", "local"):
            (base / name).mkdir()
        for node in self.nodes:
            (base / "spool" / node).mkdir()
            (base / "disk" / node / "local").mkdir(parents=True)
            (base / "disk" / node / "boot_id").write_text(f"{uuid.uuid4()}\n")
        key = base / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(256))
        gres = ""
        if self.shape.gpus:
            assert self.shape.gpus <= len(_DEVICES), "there are no more stand-in devices"
            gres = f"Name=gpu File={','.join(_DEVICES[: self.shape.gpus])}\n"
        (base / "gres.conf").write_text(gres)
        (base / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n"
        )
        if self.network is not None:
            (base / "hosts").write_text(self.network.hosts())
        self.configuration.write_text(self._text())

    def munged(self) -> list[str]:
        """The command that runs the service which says who a message is from."""
        place = self.base / "munge"
        files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log"}
        files["seed-file"] = "seed"
        options = [f"--{option}={place / name}" for option, name in files.items()]
        return [_path("munged"), "--foreground", *options]

    def slurmctld(self, *options: str) -> list[str]:
        """The command that runs the controller."""
        return [_path("slurmctld"), "-D", *options]

    def slurmd(self, node: str) -> list[str]:
        """The command that runs a node, where it has them in namespaces of its own."""
        program = [_path("slurmd"), "-D", "-N", node]
        if self.network is None:
            return program
        # Not `ip netns exec`, which mounts /sys anew and loses the control groups in it.
        enter = [_path("nsenter"), f"--net={self.network.namespace(node)}"]
        own = [_path("unshare"), "--uts", "--mount"]
        return [*enter, *own, "/bin/sh", "-c", _BECOME, "sh", node, str(self.base), *program]

    def cgroups(self) -> list[Path]:
        """The control groups that the nodes have made and not taken away."""
        found = (Path("/sys/fs/cgroup").glob(f"*/slurm_{node}") for node in self.nodes)
        return [path for each in found for path in each]

    def _text(self) -> str:
        base, shape, me = self.base, self.shape, _user_name()
        types, each = ("GresTypes=gpu", f" Gres=gpu:{shape.gpus}") if shape.gpus else ("", "")
        node_lines = []
        for index, node in enumerate(self.nodes, 1):
            host, address = ("localhost", "127.0.0.1")
            if self.network is not None:
                host, address = node, self.network.address(node)
            line = f"NodeName={node} NodeHostname={host} NodeAddr={address}"
            line += f" Port={self.port + index} CPUs={shape.cpus} RealMemory={shape.memory}{each}"
            node_lines.append(f"{line} State=UNKNOWN")
        controller = "localhost"
        if self.network is not None:  # the controller runs only under its host's own name
            controller = f"{socket.gethostname().split('.')[0]}({self.network.address()})"
        # A job's id is refused by a node that has known another of that number.
        first_job = random.randrange(1, 60_000_000)  # noqa: S311 (no secret)
        lines = [
            "ClusterName=lab",
            f"SlurmctldHost={controller}",
            f"SlurmctldPort={self.port}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={base}/munge/sock",
            "CredType=cred/munge",
            f"SlurmUser={me}",
            f"SlurmdUser={me}",
            f"StateSaveLocation={base}/state",
            f"SlurmdSpoolDir={base}/spool/%n",
            f"SlurmctldPidFile={base}/slurmctld.pid",
            f"SlurmdPidFile={base}/slurmd-%n.pid",
            f"SlurmctldLogFile={base}/log/slurmctld",
            f"SlurmdLogFile={base}/log/%n",
            f"ProctrackType=proctrack/{self.proctrack}",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SchedulerType=sched/backfill",
            # Mixed jobs are begun by backfill alone, which looks every half a minute as it comes.
            "SchedulerParameters=bf_interval=1",
            "MpiDefault=none",
            "SwitchType=switch/none",
            "ReturnToService=2",
            # The hardware need not have what a node claims.
            "SlurmdParameters=config_overrides",
            "AccountingStorageType=accounting_storage/none",
            "JobAcctGatherType=jobacct_gather/none",
            f"FirstJobId={first_job}",
            f"KillWait={shape.kill_wait}",
            "MinJobAge=10",
            types,
            *node_lines,
            "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            shape.extra,
        ]
        return "\n".join(lines) + "\n"


class Daemon:
    """A program of the cluster that runs until it is ended, as a child of this process."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.name = log.name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                argv,
                env=env,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def is_running(self) -> bool:
        """Whether it is there."""
        return self.process.poll() is None

    def freeze(self) -> None:
        """Stop it where it is: it holds its sockets and answers nobody."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order, or after ten seconds anyhow."""
        if not self.is_running():
            return
        self.process.terminate()
        self.thaw()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.is_running(), f"{self.name} ends", 10.0)
        self.kill()

    def last_words(self) -> str:
        """The end of what it wrote, and of its own log."""
        words = []
        for log in (self.log, self.log.with_suffix("")):
            text = log.read_text(errors="replace") if log.exists() else ""
            words += [f"{log.name}:", *text.splitlines()[-12:]]
        return "\n".join(words)


def _path(program: str) -> str:
    path = find(program)
    assert path is not None, f"{program} is not installed"
    return path


def _user_name() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
