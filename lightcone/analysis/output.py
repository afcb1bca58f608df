"""One output of one universe: what is made, from what, by which command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Input", "Key", "Output", "Resources"]

Key = tuple[str, str]
"""What names an output in a project: its universe and its qualified id."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of an output.

    Attributes:
        id: as the output declares it, ``"raw"`` or ``"sub.raw"``.
        text: what ``{inputs.id}`` is replaced by, before any quoting.
        path: where it lies, absolute; None where the source is no path in the file system.
        producer: the qualified id of the output of the same universe that makes it; None for
            what comes from outside.
    """

    id: str
    text: str
    path: Path | None
    producer: str | None


@dataclass(frozen=True, slots=True)
class Resources:
    """What a recipe asks for: processors, bytes (0: not said), devices, seconds."""

    cpus: float = 1.0
    memory: int = 0
    gpus: int = 0
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """An output that a recipe makes, with everything needed to make it.

    Attributes:
        universe: the universe's name.
        id: the qualified id, ``"fit"`` or ``"sub.fit"``.
        root: the project's directory, a real path; the recipe runs there.
        path: what ``{output}`` names, absolute.
        state_dir: where the output's manifest, log and the like are kept, absolute.
        is_directory: whether ``path`` is a directory that is made before the recipe runs.
        command: the rendered shell command, never empty.
        template: the command as the spec declares it.
        inputs: the declared inputs, in the order declared.
        decisions: the declared decisions that are settled in this universe, and their options.
        container: the image to run the recipe in, if any.
        resources: what the recipe asks for.
        aliases: the qualified ids of the re-exports that stand for it in this universe.
        depend_on: patterns of the project's files that it depends on whatever its command names.
    """

    universe: str
    id: str
    root: Path
    path: Path
    state_dir: Path
    is_directory: bool
    command: str
    template: str
    inputs: tuple[Input, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    container: str | None = None
    resources: Resources = Resources()
    aliases: tuple[str, ...] = ()
    depend_on: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages and arguments call it: ``universe/id``."""
        return f"{self.universe}/{self.id}"

    @property
    def log(self) -> Path:
        """What its recipe printed when it last ran."""
        return self.state_dir / "log.txt"

    @property
    def key(self) -> Key:
        """What it is found by in the mappings of a plan."""
        return (self.universe, self.id)

    @property
    def shown(self) -> str:
        """Its path as one would type it in the project's directory."""
        inside = self.path.is_relative_to(self.root)
        return str(self.path.relative_to(self.root) if inside else self.path)
