"""The command of a recipe, its placeholders filled in and quoted.

A value made only of letters, digits and ``_@%+=:,./-`` stands as it is. Any other is quoted for
where it stands in the command: bare, within double or within single quotes. The source of an input
may also hold what the shell is meant to expand, ``*``, ``?``, a leading ``~``, ``$NAME`` and
``${NAME}``; if it holds nothing else that is unusual, it stands as it is, too.

Where a value stands is judged by the quotes, substitutions and comments before it; in the text of
a here-document that judgement may be wrong, which only matters to unusual values.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from lightcone.errors import SpecError

__all__ = ["Template", "Value", "compile_template"]

_SAFE = re.compile(r"[\w@%+=:,./-]+", re.ASCII).fullmatch
_EXPANDED = re.compile(r"~?(?:[\w@%+=:,./*?-]|\$\w+|\$\{\w+\})+", re.ASCII)
_MARK = "\0"
# What ends the parts of a command in which nothing else has a meaning.
_ENDS = {"'": "'", "#": "\n"}


class _Quoting(Enum):
    BARE = "bare"
    DOUBLE = "within double quotes"
    SINGLE = "within single quotes"


class Value(NamedTuple):
    """The value of a placeholder; ``expands`` lets the shell expand it."""

    text: str
    expands: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed command: literal text and placeholders, alternating."""

    literals: tuple[str, ...]
    slots: tuple[tuple[str, _Quoting], ...]

    @property
    def names(self) -> frozenset[str]:
        """The placeholders: ``output``, ``inputs.<id>``, ``decisions.<id>``."""
        return frozenset(name for name, _ in self.slots)

    def render(self, values: Mapping[str, Value]) -> str:
        """Return the command with each placeholder replaced by its value."""
        pieces = [self.literals[0]]
        for (name, quoting), literal in zip(self.slots, self.literals[1:], strict=True):
            value = values[name]
            text = value.text
            pieces += (text if _SAFE(text) else _quote(value, quoting), literal)
        return "".join(pieces).strip()


def compile_template(
    command: str, inputs: Iterable[str], decisions: Iterable[str], label: str
) -> Template:
    """Parse a declared command, which messages call ``label``.

    ``{inputs}`` becomes the placeholders of all ``inputs``, with spaces between.

    Raises:
        SpecError: where a placeholder is unknown or its braces do not match.
    """
    from astra.resolve import render_command

    if _MARK in command:
        raise SpecError(f"{label}: the command has a NUL character: remove it.")
    try:
        marked = render_command(
            command,
            inputs={name: f"{_MARK}inputs.{name}{_MARK}" for name in inputs},
            decisions={name: f"{_MARK}decisions.{name}{_MARK}" for name in decisions},
            output=f"{_MARK}output{_MARK}",
        )
    except ValueError as error:
        problem = str(error).rstrip(".")
        if "brace" not in problem and not problem.startswith("command placeholder"):
            problem += "; braces that the shell is to see are written {{ and }}"
        raise SpecError(f"{label}: {problem}.") from error
    pieces = marked.split(_MARK)
    scanner = _Scanner()
    slots = []
    for literal, name in zip(pieces[0::2], pieces[1::2], strict=False):
        slots.append((name, scanner.read(literal)))
    return Template(tuple(pieces[0::2]), tuple(slots))


def _quote(value: Value, quoting: _Quoting) -> str:
    text = value.text
    if value.expands and quoting is not _Quoting.SINGLE and _EXPANDED.fullmatch(text):
        return text
    if quoting is _Quoting.BARE:
        return shlex.quote(text)
    if quoting is _Quoting.SINGLE:
        return text.replace("'", "'\\''")
    return re.sub(r'([\\"$`])', r"\\\1", text)


class _Scanner:
    """Scanner of a shell command that tracks the open quotes."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.before = " "

    def read(self, literal: str) -> _Quoting:
        """Advance past ``literal`` and return the quoting at its end."""
        position = 0
        while position < len(literal):
            position += self._step(literal, position)
        self.before = "placeholder"
        innermost = self.open[-1] if self.open else ""
        return {"'": _Quoting.SINGLE, '"': _Quoting.DOUBLE}.get(innermost, _Quoting.BARE)

    def _step(self, text: str, position: int) -> int:
        """Consume the text at ``position``; return its number of characters."""
        character = text[position]
        before, self.before = self.before, character
        innermost = self.open[-1] if self.open else ""
        if innermost in _ENDS:
            if character == _ENDS[innermost]:
                self.open.pop()
        elif character == "\\":
            return 2
        elif text.startswith("$(", position):
            self.open.append("(")
            return 2
        elif character in '"`':
            if innermost == character:
                self.open.pop()
            else:
                self.open.append(character)
        elif innermost == '"':
            pass
        elif character in "'(" or (character == "#" and before in " \t\n;|&("):
            self.open.append(character)
        elif character == ")" and innermost == "(":
            self.open.pop()
        return 1
