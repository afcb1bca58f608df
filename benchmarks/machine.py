"""The machine that was measured on, as far as it matters to a reader."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

__all__ = ["describe", "load"]


def describe(cores: int, directory: Path) -> str:
    """Processors, memory, system, versions: nothing that names the machine."""
    memory = psutil.virtual_memory().total / 2**30
    engine, system = version("distributed"), f"{platform.system()} {platform.release()}"
    return (
        f"{cores} cores ({_processor()}), {memory:.0f} GiB of memory, {system.split('-')[0]}, "
        f"Python {platform.python_version()}, distributed {engine}, {_tmux()}; "
        f"results on {_file_system(directory)}"
    )


def load() -> float:
    """How many processes want a core, over the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] else platform.machine()


def _tmux() -> str:
    said = subprocess.run(["tmux", "-V"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or "tmux"


def _file_system(directory: Path) -> str:
    found: Sequence[psutil._common.sdiskpart] = psutil.disk_partitions(all=True)
    above = [part for part in found if directory.is_relative_to(part.mountpoint)]
    return str(max(above, key=lambda part: len(part.mountpoint)).fstype) if above else "a disk"
