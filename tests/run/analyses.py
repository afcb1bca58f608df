"""Analyses for tests: their specs, their runs, and the proof of what was made how often."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.helpers import Sandbox, end, is_alive, wait_until

__all__ = ["Analysis", "interrupt", "output", "succeed", "told_of_waiting"]


def output(
    name: str,
    command: str,
    inputs: tuple[str, ...] = (),
    *,
    suffix: str = "txt",
    resources: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One output of a spec; ``command`` is preceded by one that records that it was run."""
    recipe: dict[str, Any] = {"command": f'echo {name} >> "$MADE"\n{command}'}
    if resources is not None:
        recipe["resources"] = dict(resources)
    entry = {"id": name, "type": "data", "format": suffix, "inputs": list(inputs)}
    if not suffix:
        del entry["format"]
    return {**entry, "recipe": recipe, **more}


class Analysis:
    """The project of a sandbox, and what runs of it did.

    Attributes:
        box: the sandbox, whose session may serve several analyses, one after the other.
        root: the project's directory.
        place: a directory outside the project, for what recipes say and wait for.
    """

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.root = box.project
        self.place = box.base / "place"
        self._programs: list[subprocess.Popen[bytes]] = []
        box.env |= {"MADE": str(self.place / "made"), "PLACE": str(self.place)}
        self.clear()

    def clear(self) -> None:
        """Make the project and the place outside it empty, as for an analysis of its own."""
        for directory in (self.root, self.place):
            directory.mkdir(exist_ok=True)
            for path in directory.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        self.spec()

    def close(self) -> None:
        """End what the test began, and wait until no recipe is left."""
        for program in self._programs:
            if program.poll() is None:
                program.kill()
            program.communicate()
        wait_until(lambda: not self.recipes(), "every recipe has ended")

    def spec(
        self,
        *outputs: dict[str, Any],
        universes: Mapping[str, Mapping[str, str]] | None = None,
        **more: Any,
    ) -> None:
        """Write ``astra.yaml``, and universes from their choices."""
        table = {"version": "0.0.14", "name": "an analysis", "outputs": list(outputs), **more}
        (self.root / "astra.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
        for name, choices in (universes or {}).items():
            self.universe(name, choices)

    def universe(self, name: str, choices: Mapping[str, str]) -> None:
        """Write a universe file."""
        path = self.root / "universes" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"id": name, "decisions": dict(choices)}))

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project's."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(
        self, *arguments: str, check: int | None = 0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """``lc run`` to its end."""
        return self.box.lc("run", *arguments, check=check, **options)

    def summary(self, *arguments: str, check: int = 0, **options: Any) -> dict[str, Any]:
        """The summary of an ``lc run --json``."""
        return self.events(*arguments, check=check, **options)[-1]

    def events(self, *arguments: str, check: int = 0, **options: Any) -> list[dict[str, Any]]:
        """What an ``lc run --json`` says."""
        text = self.run("--json", *arguments, check=check, **options).stdout
        return [json.loads(line) for line in text.splitlines()]

    def begin(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start an ``lc run``."""
        program = self.box.popen("run", *arguments, **options)
        self._programs.append(program)
        return program

    def began(self, name: str) -> None:
        """Wait until a recipe has made the file ``name`` outside the project."""
        path = self.place / name
        running = [program for program in self._programs if program.poll() is None]
        wait_until(
            lambda: path.exists() or any(each.poll() is not None for each in running),
            f"a recipe has written {name}",
        )
        assert path.exists(), [each.communicate() for each in running if each.poll() is not None]

    def open(self, name: str) -> None:
        """Make the file ``name`` outside the project, which a recipe waits for."""
        (self.place / name).touch()

    def pids(self, name: str) -> list[int]:
        """The process ids that recipes wrote to the file ``name`` outside the project."""
        return [int(word) for word in (self.place / name).read_text().split()]

    def made(self) -> list[str]:
        """The recipes that have run since this was last asked, in the order of their start."""
        path = self.place / "made"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    def path(self, name: str, universe: str = "baseline", suffix: str = "txt") -> Path:
        """Where an output lies."""
        file = f"{name}.{suffix}" if suffix else name
        return self.root / "results" / universe / file

    def state(self, name: str, universe: str = "baseline") -> Path:
        """Where an output's manifest, log and the like are."""
        return self.root / "results" / universe / ".lightcone" / name

    def text(self, name: str, universe: str = "baseline") -> str:
        """What an output says."""
        return self.path(name, universe).read_text()

    def states(self) -> dict[str, str]:
        """The state of every output, by ``universe/id``, or ``id`` in the default universe."""
        told = json.loads(self.box.lc("status", "--json").stdout)
        return {
            f"{each['universe']}/{each['id']}".removeprefix("baseline/"): each["state"]
            for each in told["outputs"]
        }

    def why(self, name: str) -> str:
        """Why an output of the default universe is not ok."""
        told = json.loads(self.box.lc("status", "--json").stdout)
        return str(next(each["why"] for each in told["outputs"] if each["id"] == name))

    def recipes(self) -> list[psutil.Process]:
        """The processes of recipes that are alive."""
        found = []
        for process in self.box.processes():
            with contextlib.suppress(psutil.Error):
                if "LIGHTCONE_TASK" in process.environ():
                    found.append(process)
        return found

    def kill_all(self, program: subprocess.Popen[bytes]) -> None:
        """Kill a run, its session and its recipes; none of them sees another one die."""
        pids = [program.pid, *self.box.programs().values()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        while fresh := {process.pid for process in self.recipes()} - set(pids):
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            pids += fresh
        end(pids)
        wait_until(lambda: not any(map(is_alive, pids)), "every process has ended")

    def leftovers(self) -> list[Path]:
        """What a run that is over must not leave among the results."""
        names = {"journal.json", "previous", "partial.new"}
        return [
            path
            for path in (self.root / "results").rglob("*")
            if path.name in names or path.name.endswith(".new")
        ]


def succeed(*programs: subprocess.Popen[bytes]) -> list[str]:
    """What the programs print until they have all ended well."""
    told = [program.communicate(timeout=90) for program in programs]
    codes = [program.returncode for program in programs]
    assert codes == [0] * len(programs), (codes, told)
    return [out.decode() for out, _ in told]


def told_of_waiting(program: subprocess.Popen[bytes]) -> str:
    """What a run says when it waits for another one; not that it waits for its session."""
    assert program.stdout is not None
    lines = (line.decode() for line in iter(program.stdout.readline, b""))
    return next(line for line in lines if ": waiting for" in line and not line.startswith("lc: "))


def interrupt(program: subprocess.Popen[bytes]) -> None:
    """Do what Ctrl-C does."""
    os.kill(program.pid, signal.SIGINT)
