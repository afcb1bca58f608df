"""The command of a recipe, its placeholders filled in and quoted.

A value made only of letters, digits and ``_@%+=:,./-`` stands as it is. Any other is quoted for
where it stands in the command: bare, within double or single quotes, or in a here-document. So the
shell expands nothing in a value, and the program receives it as it is. The matches of a pattern
are several words; they fit only where a placeholder is a word of its own, with or without quotes.

A command is rendered twice: for the shell, and for the identity of the output. The latter has the
sources as the spec has them (``$DATA/*.csv``), because what they lead to on this host is not what
determines an output; the names and bytes of the files are in the versions of the inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lightcone.errors import SpecError
from lightcone.spec.places import MARK, Place, Quoting, is_safe, places_in

__all__ = ["Template", "Value", "compile_template"]

_AS_WRITTEN = re.compile(r"~?(?:[\w@%+=:,./*?-]|\$\w+|\$\{\w+\})+", re.ASCII)
_WORD_BEGINS = re.compile(r"(?:^|(?<!\\)[\s;|&(`])\Z")
_WORD_ENDS = re.compile(r"\Z|[\s;|&)`<>]")
_REDIRECTS = re.compile(r"[<>][&|]?\s*\Z")
# Most placeholders are words without quotes.
_EVERYDAY = Place()


class Value(NamedTuple):
    """The value of a placeholder.

    Attributes:
        words: what the command receives; several where a pattern matches several files.
        written: the source as the spec has it, where that is what the identity contains.
    """

    words: tuple[str, ...]
    written: str | None = None

    @property
    def differs(self) -> bool:
        """Whether the shell may need another command than the identity contains."""
        written = self.written
        return written is not None and (not is_safe(written) or self.words != (written,))


class _Slot(NamedTuple):
    """The place of a placeholder; ``is_word`` means that it is a word of its own."""

    name: str
    place: Place
    is_word: bool

    def misfit(self, words: tuple[str, ...]) -> str:
        """Return the problem of the first word that would not arrive as it is; "" if none."""
        for text in words:
            where = self.place.misfit(text)
            if where:
                return (
                    f"the value {_shortened(text)} of {{{self.name}}} cannot stand {where}: "
                    f"assign it before (x={{{self.name}}}), and use the variable there"
                )
        return ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed command, which messages call ``label``: text and placeholders, alternating."""

    literals: tuple[str, ...]
    slots: tuple[_Slot, ...]
    label: str = ""

    @property
    def names(self) -> frozenset[str]:
        """The placeholders: ``output``, ``inputs.<id>``, ``decisions.<id>``."""
        return frozenset(slot.name for slot in self.slots)

    def render(self, values: Mapping[str, Value]) -> str:
        """Return the command that the shell runs."""
        return self.fill(values).literals[0].strip()

    def render_as_written(self, values: Mapping[str, Value]) -> str:
        """Return the command that is part of the output's identity.

        Raises:
            SpecError: where a value would not reach its place as it is.
        """
        pieces = [self.literals[0]]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            words, written = values[slot.name]
            text = words[0] if written is None else written
            if not is_safe(text):
                is_expanded = (
                    written is not None
                    and slot.place.quoting is not Quoting.SINGLE
                    and _AS_WRITTEN.fullmatch(text)
                )
                text = text if is_expanded else self._quoted(slot, text)
            elif slot.place != _EVERYDAY:
                text = self._quoted(slot, text)
            pieces += (text, literal)
        return "".join(pieces).strip()

    def fill(self, values: Mapping[str, Value]) -> Template:
        """Return the template with these placeholders replaced for the shell.

        Raises:
            SpecError: where a value would not reach its place as it is.
        """
        literals, slots = [self.literals[0]], []
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            if slot.name in values:
                words = values[slot.name].words
                self._check(slot, words)
                literals[-1] += _join(words, slot.place) + literal
            else:
                slots.append(slot)
                literals.append(literal)
        return Template(tuple(literals), tuple(slots), self.label)

    def first_misfit(self, words: Mapping[str, tuple[str, ...]]) -> str:
        """Return the problem of the first value that would not arrive as it is; "" if none."""
        return next(filter(None, (slot.misfit(words[slot.name]) for slot in self.slots)), "")

    def _check(self, slot: _Slot, words: tuple[str, ...]) -> None:
        misfit = slot.misfit(words)
        if misfit:
            raise SpecError(f"{self.label}: {misfit}.")

    def _quoted(self, slot: _Slot, text: str) -> str:
        self._check(slot, (text,))
        return slot.place.quoted(text)

    def first_crowded(self, words: Mapping[str, tuple[str, ...]]) -> str | None:
        """Return a placeholder of several words in a place for one, if any."""
        for slot in self.slots:
            if not slot.is_word and len(words[slot.name]) > 1:
                return slot.name
        return None


def compile_template(
    command: str, inputs: Iterable[str], decisions: Iterable[str], label: str
) -> Template:
    """Parse a declared command, which messages call ``label``.

    ``{inputs}`` becomes the placeholders of all ``inputs``, with spaces between.

    Raises:
        SpecError: where a placeholder is unknown or its braces do not match.
    """
    from astra.resolve import render_command

    if MARK in command:
        raise SpecError(f"{label}: the command has a NUL character: remove it.")
    try:
        marked = render_command(
            command,
            inputs={name: f"{MARK}inputs.{name}{MARK}" for name in inputs},
            decisions={name: f"{MARK}decisions.{name}{MARK}" for name in decisions},
            output=f"{MARK}output{MARK}",
        )
    except ValueError as error:
        problem = str(error).rstrip(".")
        if "brace" not in problem and not problem.startswith("command placeholder"):
            problem += "; braces that the shell is to see are written {{ and }}"
        raise SpecError(f"{label}: {problem}.") from error
    pieces = marked.split(MARK)
    literals = tuple(pieces[0::2])
    slots = [
        _Slot(name, place, _is_word(literals, number, place))
        for number, (name, place) in enumerate(zip(pieces[1::2], places_in(marked), strict=True))
    ]
    return Template(literals, tuple(slots), label)


def _is_word(literals: tuple[str, ...], number: int, place: Place) -> bool:
    """Return whether a placeholder is a word, so that several words fit in its place.

    Several do not fit after a redirection either, which takes the first and leaves the others.
    """
    # Where another placeholder is adjacent, "x" stands for it.
    before = ("x" if number else "") + literals[number].replace("\\\n", "")
    after = literals[number + 1].replace("\\\n", "") + ("x" * (number + 2 < len(literals)))
    if place.is_single:
        return False
    if place.quoting is not Quoting.BARE:
        quote = {Quoting.DOUBLE: '"', Quoting.SINGLE: "'"}.get(place.quoting)
        if quote is None or not (before.endswith(quote) and after.startswith(quote)):
            return False
        before, after = before[:-1], after[1:]
    return bool(
        _WORD_BEGINS.search(before) and _WORD_ENDS.match(after) and not _REDIRECTS.search(before)
    )


def _join(words: tuple[str, ...], place: Place) -> str:
    quote = {Quoting.DOUBLE: '"', Quoting.SINGLE: "'"}.get(place.quoting, "")
    return f"{quote} {quote}".join(map(place.quoted, words))


def _shortened(text: str) -> str:
    text = repr(text)
    return text if len(text) <= 60 else f"{text[:57]}..."
