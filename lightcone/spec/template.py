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
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from lightcone.errors import SpecError

__all__ = ["Template", "Value", "compile_template"]

_SAFE = re.compile(r"[\w@%+=:,./-]+", re.ASCII).fullmatch
_AS_WRITTEN = re.compile(r"~?(?:[\w@%+=:,./*?-]|\$\w+|\$\{\w+\})+", re.ASCII)
_MARK = "\0"
# What ends the parts of a command in which nothing else has a meaning.
_ENDS = {"'": "'", "#": "\n"}
_DOCUMENT = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]+)'|\"([^\"\n]+)\"|(\\?)([\w.+-]+))")
_WORD_BEGINS = re.compile(r"(?:^|(?<!\\)[\s;|&(`])\Z")
_WORD_ENDS = re.compile(r"\Z|[\s;|&)`<>]")
_REDIRECTS = re.compile(r"[<>][&|]?\s*\Z")


class _Quoting(Enum):
    BARE = "bare"
    DOUBLE = "within double quotes"
    SINGLE = "within single quotes"
    DOCUMENT = "in a here-document"
    VERBATIM = "in a here-document without expansions"


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
        return written is not None and (not _SAFE(written) or self.words != (written,))


class _Slot(NamedTuple):
    """The place of a placeholder; ``is_word`` means that it is a word of its own."""

    name: str
    quoting: _Quoting
    is_word: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed command: literal text and placeholders, alternating."""

    literals: tuple[str, ...]
    slots: tuple[_Slot, ...]

    @property
    def names(self) -> frozenset[str]:
        """The placeholders: ``output``, ``inputs.<id>``, ``decisions.<id>``."""
        return frozenset(slot.name for slot in self.slots)

    def render(self, values: Mapping[str, Value]) -> str:
        """Return the command that the shell runs."""
        return self.fill(values).literals[0].strip()

    def render_as_written(self, values: Mapping[str, Value]) -> str:
        """Return the command that is part of the output's identity."""
        pieces = [self.literals[0]]
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            words, written = values[slot.name]
            text = words[0] if written is None else written
            if not _SAFE(text):
                is_plain = written is not None and _AS_WRITTEN.fullmatch(text)
                if not is_plain or slot.quoting is _Quoting.SINGLE:
                    text = _quote(text, slot.quoting)
            pieces += (text, literal)
        return "".join(pieces).strip()

    def fill(self, values: Mapping[str, Value]) -> Template:
        """Return the template with these placeholders replaced for the shell."""
        literals, slots = [self.literals[0]], []
        for slot, literal in zip(self.slots, self.literals[1:], strict=True):
            if slot.name in values:
                literals[-1] += _join(values[slot.name].words, slot.quoting) + literal
            else:
                slots.append(slot)
                literals.append(literal)
        return Template(tuple(literals), tuple(slots))

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
    literals = tuple(pieces[0::2])
    quotings = _Scanner(marked).quotings()
    slots = [
        _Slot(name, quoting, _is_word(literals, number, quoting))
        for number, (name, quoting) in enumerate(zip(pieces[1::2], quotings, strict=True))
    ]
    return Template(literals, tuple(slots))


def _is_word(literals: tuple[str, ...], number: int, quoting: _Quoting) -> bool:
    """Return whether a placeholder is a word, so that several words fit in its place.

    Several do not fit after a redirection either, which takes the first and leaves the others.
    """
    # Where another placeholder is adjacent, "x" stands for it.
    before = ("x" if number else "") + literals[number].replace("\\\n", "")
    after = literals[number + 1].replace("\\\n", "") + ("x" * (number + 2 < len(literals)))
    if quoting is not _Quoting.BARE:
        quote = {_Quoting.DOUBLE: '"', _Quoting.SINGLE: "'"}.get(quoting)
        if quote is None or not (before.endswith(quote) and after.startswith(quote)):
            return False
        before, after = before[:-1], after[1:]
    return bool(
        _WORD_BEGINS.search(before) and _WORD_ENDS.match(after) and not _REDIRECTS.search(before)
    )


def _join(words: tuple[str, ...], quoting: _Quoting) -> str:
    quoted = [word if _SAFE(word) else _quote(word, quoting) for word in words]
    quote = {_Quoting.DOUBLE: '"', _Quoting.SINGLE: "'"}.get(quoting, "")
    return f"{quote} {quote}".join(quoted)


def _quote(text: str, quoting: _Quoting) -> str:
    if quoting is _Quoting.BARE:
        return shlex.quote(text)
    if quoting is _Quoting.SINGLE:
        return text.replace("'", "'\\''")
    if quoting is _Quoting.DOUBLE:
        return re.sub(r'([\\"$`])', r"\\\1", text)
    return re.sub(r"([\\$`])", r"\\\1", text) if quoting is _Quoting.DOCUMENT else text


class _Scanner:
    """Scanner of a shell command that tracks the open quotes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.open: list[str] = []
        self.before = " "
        # Of the here-documents whose text begins with the next line: terminator and kind.
        self.announced: list[tuple[re.Pattern[str], _Quoting]] = []
        # Of the open here-document: where it ends, and how much was open around it.
        self.document: tuple[int, int] | None = None

    def quotings(self) -> list[_Quoting]:
        """Return the quoting of each marked placeholder."""
        found = []
        position = 0
        while position < len(self.text):
            if self.document is not None and position >= self.document[0]:
                del self.open[self.document[1] :]
                self.document = None
                self._open_document(position)
            if self.text[position] == _MARK:
                found.append(_QUOTINGS.get(self.open[-1] if self.open else "", _Quoting.BARE))
                self.before = "placeholder"
                position = self.text.index(_MARK, position + 1) + 1
            else:
                position += self._step(position)
        return found

    def _step(self, position: int) -> int:
        """Consume the text at ``position``; return its number of characters."""
        text = self.text
        character = text[position]
        before, self.before = self.before, character
        innermost = self.open[-1] if self.open else ""
        if innermost in _ENDS:
            if character == _ENDS[innermost]:
                self.open.pop()
        elif innermost == _Quoting.VERBATIM.value:
            return 1
        elif character == "\\" and text[position + 1 : position + 2] != _MARK:
            return 2
        elif text.startswith("$(", position):
            self.open.append("(")
            return 2
        elif character in '"`' and innermost != _Quoting.DOCUMENT.value:
            if innermost == character:
                self.open.pop()
            else:
                self.open.append(character)
        elif character == "`":
            self.open.append(character)
        elif innermost in ('"', _Quoting.DOCUMENT.value):
            return 1
        elif character in "'(" or (character == "#" and before in " \t\n;|&("):
            self.open.append(character)
        elif character == ")" and innermost == "(":
            self.open.pop()
        elif character == "<":
            return self._announce(position)
        if character == "\n" and innermost != "'" and self.announced:
            self._open_document(position + 1)
        return 1

    def _announce(self, position: int) -> int:
        """Note the here-document that is announced at ``position``, if one is."""
        if self.text.startswith("<<<", position):
            return 3
        match = _DOCUMENT.match(self.text, position)
        if match is None:
            return 1
        tabs, single, double, backslash, bare = match.groups()
        indent = r"\t*" if tabs else ""
        last_line = rf"^{indent}{re.escape(single or double or bare)}$"
        quoting = _Quoting.VERBATIM if single or double or backslash else _Quoting.DOCUMENT
        self.announced.append((re.compile(last_line, re.MULTILINE), quoting))
        return len(match[0])

    def _open_document(self, position: int) -> None:
        """Open the next announced here-document, whose text begins at ``position``.

        Without its last line it is none: ``<<`` shifts a number, for instance.
        """
        while self.announced:
            terminator, quoting = self.announced.pop(0)
            end = terminator.search(self.text, position)
            if end is not None:
                self.document = (end.end(), len(self.open))
                self.open.append(quoting.value)
                return


_QUOTINGS = {
    "'": _Quoting.SINGLE,
    '"': _Quoting.DOUBLE,
    _Quoting.DOCUMENT.value: _Quoting.DOCUMENT,
    _Quoting.VERBATIM.value: _Quoting.VERBATIM,
}
