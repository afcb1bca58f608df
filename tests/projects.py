"""Projects for tests, of real files, and what a run would leave in them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightcone.project.settings import Settings, load_settings
from lightcone.spec.output import Key, Output
from lightcone.spec.outputs import load_outputs
from lightcone.state.fingerprint import fingerprint
from lightcone.state.manifest import Manifest, Provenance, write_manifest
from lightcone.state.plan import Assessment, plan
from lightcone.state.products import Products

__all__ = ["Project"]

_PAST = 1_000_000_000 * 10**9
_MINUTES = itertools.count()


class Project:
    """A project directory that a test writes to.

    Files get times long past, each another one, so that an edit shows in them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def write(self, name: str, text: str) -> Path:
        """Write a file and the directories above it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.age(path)
        return path

    def age(self, path: Path) -> None:
        """Give a path a time in the past that no other has."""
        when = _PAST + next(_MINUTES) * 60 * 10**9
        os.utime(path, ns=(when, when))

    def spec(self, text: str, universes: Mapping[str, str] | None = None) -> Project:
        """Write ``astra.yaml`` and universe files."""
        self.write("astra.yaml", text)
        for name, universe in (universes or {}).items():
            self.write(f"universes/{name}.yaml", universe)
        return self

    def outputs(self, universe: str | None = None, **settings: str) -> list[Output]:
        """What the spec says is to be made."""
        given = Settings(**settings) if settings else load_settings(self.root)  # type: ignore[arg-type]
        return load_outputs(self.root, given, universe)

    def output(self, name: str) -> Output:
        """One output, by ``id`` where there is one universe, else by ``universe/id``."""
        found = [each for each in self.outputs() if name in (each.id, each.name)]
        assert len(found) == 1, f"{name}: {[each.name for each in found]}"
        return found[0]

    def plan(self, force: Iterable[Key] = ()) -> dict[str, Assessment]:
        """What is known of each output, by name."""
        assessed = plan(self.outputs(), frozenset(force))
        return {assessment.output.name: assessment for assessment in assessed.values()}

    def states(self) -> dict[str, str]:
        """The state of each output, with the reason in brackets."""
        return {
            name: f"{each.state}{f' ({each.why})' if each.why else ''}"
            for name, each in self.plan().items()
        }

    def why(self, name: str) -> str:
        """Why one output is not ok."""
        return self.plan()[name].why

    def make(self) -> list[str]:
        """Do what a run does, one output after the other; the names of those that were made."""
        made = []
        outputs = {each.name: each for each in self.outputs()}
        for name, output in outputs.items():
            assessment = self.plan()[name]
            if assessment.is_good:
                continue
            assert assessment.provenance is not None, assessment.why
            products = Products(output, assessment.provenance)
            try:
                self.execute(output)
            except subprocess.CalledProcessError as error:
                self.fail(
                    output,
                    template=output.template,
                    products=products.detect(),
                    exit_code=error.returncode,
                    identity=assessment.provenance.identity,
                )
                raise
            self.record(output, assessment.provenance, products)
            made.append(name)
        return made

    def execute(self, output: Output) -> None:
        """Run a recipe."""
        output.path.parent.mkdir(parents=True, exist_ok=True)
        if output.is_directory:
            output.path.mkdir(exist_ok=True)
        subprocess.run(
            ["/bin/sh", "-ec", output.shell_command], cwd=output.root, check=True, timeout=30
        )
        paths = [output.path] if output.path.is_file() else output.path.rglob("*")
        for path in paths:
            if not path.is_symlink():
                self.age(path)

    def record(
        self, output: Output, provenance: Provenance, products: Products | None = None
    ) -> Manifest:
        """Write the manifest of what lies at an output's path."""
        record = Manifest(
            output=output.id,
            universe=output.universe,
            identity=provenance.identity,
            provenance=provenance,
            data=fingerprint(output.path),
            made={"started": "2026-11-22T00:00:00+00:00", "seconds": 0.1, "exit_code": 0},
        )
        if products is not None:
            record = products.add_to(record, products.changed_sources())
        write_manifest(output.state_dir, record)
        return record

    def fail(self, output: Output, **record: object) -> None:
        """Leave the record of a failure, of the current identity unless another is given."""
        provenance = self.plan()[output.name].provenance
        identity = None if provenance is None else provenance.identity
        output.state_dir.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {"version": 1, "identity": identity, "exit_code": None, "reason": ""} | record
        )
        (output.state_dir / "failure.json").write_text(text)
