"""Outputs, their inputs, and the resources that their recipes request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lightcone.errors import SpecError
from lightcone.spec.template import Template, Value
from lightcone.system.units import parse_bytes, parse_seconds

__all__ = ["MANIFEST", "OLD_MANIFEST", "Input", "Key", "Output", "Resources", "read_resources"]

MANIFEST = "manifest.json"

"""The record of a good output, in its state directory."""

OLD_MANIFEST = ".lightcone-manifest.json"

"""The record of lightcone-cli, in the directory that is the output."""

Key = tuple[str, str]

"""Key of an output in a project: its universe and its qualified id."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input of an output.

    Attributes:
        id: as the output declares it, ``"raw"`` or ``"sub.raw"``.
        text: what records and messages call it: the source as the spec has it, or a path.
        place: where it lies, absolute; None where the source is a pattern or a text.
        producer: the qualified id of the output of the same universe that makes it; None for
            what comes from outside.
        certain: whether what comes from outside is a path or a pattern beyond doubt, so that no
            recipe can do without something there.
        words: what the command receives for a source, and what is hashed: a path, the matches of
            a pattern or a text. Empty where that is ``text``.
        pattern: the pattern that ``words`` match, from the root.
        unset: the variables in the source that are not set.
    """

    id: str
    text: str
    place: str | None
    producer: str | None
    certain: bool = False
    words: tuple[str, ...] = ()
    pattern: str | None = None
    unset: tuple[str, ...] = ()

    @property
    def path(self) -> Path | None:
        """The location ``place`` as a path."""
        return None if self.place is None else Path(self.place)

    @property
    def value(self) -> tuple[str, ...]:
        """The words that the command receives."""
        return self.words or (self.text,)


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of a recipe: processors, bytes (0: unspecified), devices, seconds."""

    cpus: float = 1.0
    memory: int = 0
    gpus: int = 0
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """An output that a recipe makes, with everything needed to make it.

    Its location is kept as text: a plan checks tens of thousands, and building paths would take
    longer than checking.

    Attributes:
        universe: the universe's name.
        id: the qualified id, ``"fit"`` or ``"sub.fit"``.
        root: the project's directory, a real path; the recipe runs there.
        place: what ``{output}`` names, absolute.
        state: the directory where the output's manifest, log and the like are kept, absolute.
        is_directory: whether ``place`` is a directory that is made before the recipe runs.
        command: the rendered command, never empty, with the sources of inputs as the spec has
            them; the part of the identity.
        template: the command as the spec declares it.
        inputs: the declared inputs, in the order declared.
        decisions: the declared decisions that are settled in this universe, and their options.
        container: the image to run the recipe in, if any.
        resources: what the recipe asks for.
        aliases: the qualified ids of the re-exports that stand for it in this universe.
        depend_on: patterns of the project's files that it depends on whatever its command names.
        ignore: patterns of files that do not count in inputs that are directories.
        shell_template: the command for the shell, where that is another than ``command``; open
            are the placeholders of patterns.
    """

    universe: str
    id: str
    root: Path
    place: str
    state: str
    is_directory: bool
    command: str
    template: str
    inputs: tuple[Input, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    container: str | None = None
    resources: Resources = Resources()
    aliases: tuple[str, ...] = ()
    depend_on: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    shell_template: Template | None = None

    @property
    def shell_command(self) -> str:
        """The command that the shell runs, with the sources of inputs filled in.

        Raises:
            SpecError: where a pattern matches several files, and its place is for one.
        """
        if self.shell_template is None:
            return self.command
        if self.misfit:
            raise SpecError(f"{self.name}: {self.misfit}.")
        return self.shell_template.render(
            {f"inputs.{given.id}": Value(given.value) for given in self.inputs}
        )

    @property
    def misfit(self) -> str:
        """What is wrong where the files of a pattern do not fit into their place; else ""."""
        if self.shell_template is None:
            return ""
        inputs = {f"inputs.{given.id}": given for given in self.inputs}
        name = self.shell_template.first_crowded(
            {name: given.value for name, given in inputs.items()}
        )
        if name is None:
            return self.shell_template.first_misfit(
                {name: given.value for name, given in inputs.items()}
            )
        given = inputs[name]
        return (
            f"input {given.id}: {given.text} matches {len(given.words)} files, and {{{name}}} is "
            "in a place for one: make it a word of its own in the command, with or without quotes"
        )

    @property
    def path(self) -> Path:
        """The location ``place`` as a path."""
        return _path(self.place)

    @property
    def state_dir(self) -> Path:
        """The directory ``state`` as a path."""
        return _path(self.state)

    @property
    def name(self) -> str:
        """The name in messages and arguments: ``universe/id``."""
        return f"{self.universe}/{self.id}"

    @property
    def log(self) -> Path:
        """The log of the recipe's last attempt."""
        return _path(f"{self.state}/log.txt")

    @property
    def good_log(self) -> Path:
        """The log of the good result, where later attempts have failed."""
        return _path(f"{self.state}/good-log.txt")

    @property
    def key(self) -> Key:
        """The key of the output in the mappings of a plan."""
        return (self.universe, self.id)

    @property
    def display_path(self) -> str:
        """The path as a user would type it in the project's directory."""
        return self.place.removeprefix(f"{self.root}/")


# Cached, because making one output needs its paths many times.
_path = lru_cache(maxsize=1 << 10)(Path)


_DEFAULTS = Resources()


def read_resources(declared: Mapping[str, object] | None, label: str) -> Resources:
    """Parse the resources of a recipe, which messages call ``label``.

    Missing and unknown resources are left out.

    Raises:
        SpecError: where a value cannot be read.
    """
    if not declared:
        return _DEFAULTS
    values: dict[str, int | float] = {}
    for name, parse in _PARSERS.items():
        text = declared.get(name)
        if text is None:
            continue
        try:
            values[name] = parse(str(text))
        except ValueError as error:
            raise SpecError(f"{label}: '{name}' under 'resources': {error}.") from error
    return Resources(
        cpus=values.get("cpus", _DEFAULTS.cpus),
        memory=int(values.get("memory", _DEFAULTS.memory)),
        gpus=int(values.get("gpus", _DEFAULTS.gpus)),
        time_limit=values.get("time_limit"),
    )


def _cpus(text: str) -> float:
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if not 0 < cpus < math.inf:
        raise ValueError(f"{text!r} is not a number of processors (write 1, 4 or 0.5)")
    return cpus


def _gpus(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"{text!r} is not a number of devices (write 1 or 2)")
    return int(text)


def _time_limit(text: str) -> float:
    seconds = parse_seconds(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} leaves no time (write 90, 30m or 1h30m)")
    return seconds


_PARSERS: dict[str, Callable[[str], int | float]] = {
    "cpus": _cpus,
    "memory": parse_bytes,
    "gpus": _gpus,
    "time_limit": _time_limit,
}
