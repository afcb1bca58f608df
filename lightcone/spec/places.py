"""Places of placeholders in a shell command, and how a value is quoted in each.

The scanner reads the command as bash does: quotes of each kind, substitutions, here-documents,
arithmetic and comments, within one another. A value reaches its place as it is, or is refused
there: ``((…))`` computes with it, and a comment ends with its first line.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["MARK", "Place", "Quoting", "is_safe", "places_in"]

MARK = "\0"
"""Encloses the name of a placeholder in a marked command."""

_SAFE = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
is_safe = _SAFE.fullmatch
"""Return a match of a value that the shell takes as it is."""

_DOCUMENT = re.compile(r"<<(-?)[ \t]*((?:'[^'\n]*'|\"[^\"\n]*\"|\\.|[^\s;|&<>()'\"`\\\0])+)")
_QUOTE_MARKS = re.compile(r"""\\(.)|['"]""")
_COMMAND_BEGINS = re.compile(
    r"(?:^|[;|&(\n`!]|(?:^|[\s;])(?:if|then|do|else|elif|while|until|time|for|\{)[ \t])[ \t]*$"
)
_RESERVED = frozenset(
    {"if", "then", "elif", "else", "fi", "time", "for", "in", "until", "while", "do", "done"}
    | {"case", "esac", "coproc", "select", "function"}
)
_NAMED = re.compile(r"\$(?:[A-Za-z_]\w*|[\w?!#@*-])", re.ASCII)
_EXPANSION = re.compile(r"\$\{[!#]?(?:\w+|[@*?])((?::?[-=+?])|.|)", re.ASCII | re.DOTALL)
_WORD_SO_FAR = re.compile(r"[^\s;|&()<>]*$")
# Nowhere has any of these a meaning, but "case" and "esac".
_PLAIN = re.compile(r"(?![ce])[\w./=:,+@%-]+")
_LOOKBACK = 256
# A command of only these opens nothing.
_OPENS_NOTHING = re.compile(r"[\w\s./=:,+@%~*?|;&>\0-]*")


class Quoting(Enum):
    """The quotes around a place."""

    BARE = "bare"
    DOUBLE = '"'
    SINGLE = "'"
    ANSI = "$'"
    DOCUMENT = "a here-document"
    VERBATIM = "a here-document without expansions"


class Place(NamedTuple):
    """Where in a command a placeholder stands.

    Attributes:
        quoting: the innermost quotes.
        backticks: the number of backtick substitutions around it.
        forced: also a value that is safe elsewhere has to be quoted.
        begins_command: the value would be the first word of a command.
        document: the last line of the here-document around it; None outside of one.
        keeps_tabs: whether tabs at the beginning of a line reach the here-document.
        after_name: it directly follows the name of a variable.
        is_single: several words do not fit.
        only: a pattern of the values that fit at all, with ``where`` for the message.
    """

    quoting: Quoting = Quoting.BARE
    backticks: int = 0
    forced: bool = False
    begins_command: bool = False
    document: str | None = None
    keeps_tabs: bool = True
    after_name: bool = False
    is_single: bool = False
    only: re.Pattern[str] | None = None
    where: str = ""

    def misfit(self, text: str) -> str:
        """Return where a value would not arrive as it is; "" where it does."""
        if self.only is not None and self.only.fullmatch(text) is None:
            return self.where
        if self.document is not None:
            lines = text.split("\n")
            if any(line in self.document for line in lines):
                return "in a here-document, which it could end"
            if not self.keeps_tabs and any(line.startswith("\t") for line in lines):
                return "in a here-document after '<<-', which removes tabs"
        if self.quoting is Quoting.DOCUMENT and self.after_name and re.match(r"\w", text):
            return "directly after the name of a variable"
        return ""

    def quoted(self, text: str) -> str:
        """Return a value as it has to be written to arrive as it is."""
        is_plain = is_safe(text) is not None and not self.forced
        if is_plain and self.begins_command and ("=" in text or text in _RESERVED):
            is_plain = False
        written = text if is_plain else self._in_quotes(text)
        if self.after_name and self.quoting is Quoting.DOUBLE:
            written = f'""{written}'
        for _ in range(self.backticks):
            written = re.sub(r"([\\$`])", r"\\\1", written)
        return written

    def _in_quotes(self, text: str) -> str:
        match self.quoting:
            case Quoting.BARE:
                # shlex leaves a safe value without quotes.
                return f"'{text}'" if is_safe(text) else shlex.quote(text)
            case Quoting.SINGLE:
                return text.replace("'", "'\\''")
            case Quoting.ANSI:
                return re.sub(r"([\\'])", r"\\\1", text)
            case Quoting.DOUBLE:
                return re.sub(r'([\\"$`])', r"\\\1", text)
            case Quoting.DOCUMENT:
                return re.sub(r"([\\$`])", r"\\\1", text)
        return text


def places_in(marked: str) -> list[Place]:
    """Return the place of each placeholder in a marked command."""
    if _OPENS_NOTHING.fullmatch(marked) is None:
        return _Scanner(marked).places()
    begins = [match.start() for match in re.finditer(MARK, marked)][0::2]
    return [
        Place(begins_command=_begins_command(marked[max(0, begin - 32) : begin]))
        for begin in begins
    ]


def _begins_command(text_before: str) -> bool:
    return _COMMAND_BEGINS.search(text_before) is not None


class _Kind(Enum):
    """What is open: quotes, substitutions and the like."""

    SINGLE = "'"
    ANSI = "$'"
    DOUBLE = '"'
    COMMENT = "#"
    DOCUMENT = "<<"
    VERBATIM = "<<'"
    BACKTICK = "`"
    SUBSTITUTION = "$("
    GROUP = "("
    ARITHMETIC = "(("
    BRACKET = "$["
    EXPANSION = "${"
    TEST = "[["


_ARITHMETIC = (_Kind.ARITHMETIC, _Kind.BRACKET)
_COMMANDS = (_Kind.BACKTICK, _Kind.SUBSTITUTION, _Kind.GROUP)
_QUOTINGS = {
    _Kind.SINGLE: Quoting.SINGLE,
    _Kind.ANSI: Quoting.ANSI,
    _Kind.DOUBLE: Quoting.DOUBLE,
    _Kind.DOCUMENT: Quoting.DOCUMENT,
    _Kind.VERBATIM: Quoting.VERBATIM,
}
_INTEGER = re.compile(r"-?\d+", re.ASCII)
_IN_EXPANSION = re.compile(r"[\w.-]+", re.ASCII)
_NOTHING = re.compile(r"(?!)")
_ONE_LINE = re.compile(r"[^\n]*")


@dataclass(slots=True)
class _Open:
    """An open construct.

    ``cases`` counts the ``case`` whose ``esac`` is to come, ``groups`` the open parentheses of
    arithmetic; ``escapes`` is whether backslashes in backticks change what the text means.
    """

    kind: _Kind
    start: int
    cases: int = 0
    groups: int = 0
    escapes: bool = False
    terminator: str = ""
    keeps_tabs: bool = True


class _Announced(NamedTuple):
    """A here-document whose text begins with the next line."""

    terminator: str
    keeps_tabs: bool
    kind: _Kind


class _Scanner:
    """Scanner of a marked command that tracks what is open."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[_Open] = []
        self._before = " "
        self._announced: list[_Announced] = []
        # Of the open here-document: where it ends, and how much was open around it.
        self._document: tuple[int, int] | None = None

    def places(self) -> list[Place]:
        """Return the place of each placeholder."""
        found = []
        position = 0
        while position < len(self._text):
            if self._document is not None and position >= self._document[0]:
                del self._open[self._document[1] :]
                self._document = None
                self._open_document(position)
            if self._text[position] == MARK:
                found.append(self._place(position))
                self._before = "placeholder"
                position = self._text.index(MARK, position + 1) + 1
                continue
            plain = _PLAIN.match(self._text, position)
            if plain is None:
                position += self._step(position)
            else:
                position = plain.end()
                self._before = self._text[position - 1]
        return found

    def _place(self, position: int) -> Place:
        kind = self._open[-1].kind if self._open else None
        text = self._text[max(0, position - _LOOKBACK) : position]
        document = next((each for each in reversed(self._open) if each.terminator), None)
        only, where = self._limits(position, text)
        is_bare = kind not in _QUOTINGS
        so_far = _WORD_SO_FAR.search(text)
        after_name = self._before == "$name"
        return Place(
            quoting=_QUOTINGS.get(kind, Quoting.BARE) if kind else Quoting.BARE,
            backticks=sum(each.kind is _Kind.BACKTICK for each in self._open),
            forced=is_bare
            and (
                kind is _Kind.TEST
                or after_name
                or (so_far is not None and ("{" in so_far[0] or "[" in so_far[0]))
            )
            and kind is not _Kind.COMMENT
            and only is None,
            begins_command=is_bare and kind is not _Kind.TEST and _begins_command(text[-32:]),
            document=document.terminator if document else None,
            keeps_tabs=document is None or document.keeps_tabs,
            after_name=after_name,
            is_single=only is not None or kind is _Kind.TEST,
            only=only,
            where=where,
        )

    def _limits(self, position: int, text: str) -> tuple[re.Pattern[str] | None, str]:
        """Return a pattern of the values that fit here, if not all do, and the place's name."""
        kind = self._open[-1].kind if self._open else None
        if kind is _Kind.COMMENT:
            return _ONE_LINE, "in a comment, which ends with the line"
        if kind not in (_Kind.SINGLE, _Kind.VERBATIM):
            if self._before == "$":
                return _NOTHING, "directly after '$', which would make a variable of it"
            if self._before == "\\":
                only = _NOTHING if kind is _Kind.ANSI else _SAFE
                return only, "directly after a backslash"
        if kind not in _QUOTINGS and re.search(r"(?<!<)<<-?[ \t]*$", text):
            return _NOTHING, "after '<<', as the end of a here-document"
        for each in reversed(self._open):
            if each.kind in _ARITHMETIC:
                return _INTEGER, "in arithmetic, where it would be computed"
            if each.kind is _Kind.EXPANSION:
                return self._limit_in_expansion(each.start, position), "in '${...}'"
            if each.kind in _COMMANDS:
                break
        if any(each.escapes for each in self._open):
            return _SAFE, "in backticks that have a backslash before it"
        return None, ""

    def _limit_in_expansion(self, start: int, position: int) -> re.Pattern[str]:
        match = _EXPANSION.match(self._text, start, position)
        if match is None:
            return _NOTHING
        if match[1] in (":", "["):
            return _INTEGER
        return _SAFE if match[1][-1:] in tuple("-=+?") and match[1] else _IN_EXPANSION

    def _step(self, position: int) -> int:
        """Consume the text at ``position``; return its number of characters."""
        text = self._text
        character = text[position]
        before, self._before = self._before, character
        innermost = self._open[-1] if self._open else None
        kind = innermost.kind if innermost else None
        if character == "`" and self._close_backtick():
            return 1
        if kind is _Kind.VERBATIM:
            return 1
        if kind is _Kind.SINGLE:
            if character == "'":
                self._open.pop()
            return 1
        if kind is _Kind.COMMENT:
            if character != "\n":
                return 1
            self._open.pop()
            kind = self._open[-1].kind if self._open else None
        if character == "\\":
            return self._escape(position)
        if kind is _Kind.ANSI:
            if character == "'":
                self._open.pop()
            return 1
        if character == "$":
            return self._dollar(position)
        if character == "`":
            return self._push(_Kind.BACKTICK, position, 1)
        if kind is _Kind.DOCUMENT:
            return 1
        if character == '"':
            if kind is _Kind.DOUBLE:
                self._open.pop()
                return 1
            return self._push(_Kind.DOUBLE, position, 1)
        if kind is _Kind.DOUBLE:
            return 1
        if kind is _Kind.EXPANSION:
            if character == "}":
                self._open.pop()
                self._before = "}"
            elif character == "'" and not self._in_double_quotes():
                return self._push(_Kind.SINGLE, position, 1)
            return 1
        if character == "'":
            return self._push(_Kind.SINGLE, position, 1)
        if innermost is not None and kind in _ARITHMETIC:
            return self._compute(innermost, position)
        return self._command(position, before)

    def _command(self, position: int, before: str) -> int:
        """Consume what stands outside of quotes, where commands are."""
        text = self._text
        character = text[position]
        innermost = self._open[-1] if self._open else None
        kind = innermost.kind if innermost else None
        if character == "#" and before in " \t\n;|&()`<>":
            return self._push(_Kind.COMMENT, position, 1)
        if character == "(":
            if text.startswith("((", position) and self._begins_command(position):
                return self._push(_Kind.ARITHMETIC, position, 2)
            return self._push(_Kind.GROUP, position, 1)
        if character == ")":
            if innermost is not None and kind in (_Kind.SUBSTITUTION, _Kind.GROUP):
                if innermost.cases:
                    return 1
                self._open.pop()
                if kind is _Kind.SUBSTITUTION:
                    self._before = "substitution"
            return 1
        if character == "[" and text.startswith("[[", position) and kind is not _Kind.TEST:
            if self._begins_command(position) and text[position + 2 : position + 3].isspace():
                return self._push(_Kind.TEST, position, 2)
        elif character == "]" and kind is _Kind.TEST and text.startswith("]]", position):
            self._open.pop()
            return 2
        elif character in "ce" and innermost is not None and before in " \t\n;|&(`)":
            self._count_case(innermost, position)
        elif character == "<":
            return self._announce(position)
        elif character == "\n" and self._announced:
            self._open_document(position + 1)
        return 1

    def _push(self, kind: _Kind, position: int, length: int) -> int:
        self._open.append(_Open(kind, position))
        self._before = "(" if kind in _COMMANDS else kind.value
        return length

    def _close_backtick(self) -> bool:
        """Close the innermost backticks, and what is open in them, if any are open.

        The shell looks for their end before it looks at what is in them.
        """
        for number in range(len(self._open) - 1, -1, -1):
            if self._open[number].kind is _Kind.BACKTICK:
                del self._open[number:]
                if self._document is not None and self._document[1] > number:
                    self._document = None
                self._before = "substitution"
                return True
        return False

    def _escape(self, position: int) -> int:
        escaped = self._text[position + 1 : position + 2]
        for each in self._open:
            if each.kind is _Kind.BACKTICK and escaped in ("\\", "`", "$", '"'):
                each.escapes = True
        if escaped == MARK:
            return 1
        self._before = "x"
        return 2

    def _dollar(self, position: int) -> int:
        text = self._text
        following = text[position + 1 : position + 2]
        kind = self._open[-1].kind if self._open else None
        if following == "(":
            if text.startswith("$((", position):
                return self._push(_Kind.ARITHMETIC, position, 3)
            return self._push(_Kind.SUBSTITUTION, position, 2)
        if following == "{":
            return self._push(_Kind.EXPANSION, position, 2)
        if following == "[":
            return self._push(_Kind.BRACKET, position, 2)
        if following == "$":
            self._before = "x"
            return 2
        if kind not in (_Kind.DOUBLE, _Kind.DOCUMENT) and following in ("'", '"'):
            if following == "'" and not (kind is _Kind.EXPANSION and self._in_double_quotes()):
                return self._push(_Kind.ANSI, position, 2)
            return 1
        named = _NAMED.match(text, position)
        if named is not None:
            self._before = "$name"
            return len(named[0])
        return 1

    def _in_double_quotes(self) -> bool:
        for each in reversed(self._open):
            if each.kind in (_Kind.DOUBLE, _Kind.DOCUMENT):
                return True
            if each.kind in _COMMANDS:
                break
        return False

    def _compute(self, arithmetic: _Open, position: int) -> int:
        """Consume the text of arithmetic, which ends with ``))`` or ``]``."""
        character = self._text[position]
        if arithmetic.kind is _Kind.BRACKET:
            if character == "]":
                self._open.pop()
            return 1
        if character == "(":
            arithmetic.groups += 1
        elif character == ")":
            if arithmetic.groups:
                arithmetic.groups -= 1
            elif self._text.startswith("))", position):
                self._open.pop()
                return 2
            else:
                # It is a command in two pairs of parentheses.
                arithmetic.kind = _Kind.SUBSTITUTION
        return 1

    def _begins_command(self, position: int) -> bool:
        before = self._text[max(0, position - 32) : position]
        return _COMMAND_BEGINS.search(before) is not None

    def _count_case(self, innermost: _Open, position: int) -> None:
        word = self._text[position : position + 5]
        if re.match(r"case\s", word) and self._begins_command(position):
            innermost.cases += 1
        elif re.match(r"esac(?!\w)", word) and innermost.cases:
            innermost.cases -= 1

    def _announce(self, position: int) -> int:
        """Note the here-document that is announced at ``position``, if one is."""
        if self._text.startswith("<<<", position):
            return 3
        match = _DOCUMENT.match(self._text, position)
        if match is None:
            return 1
        tabs, word = match.groups()
        is_verbatim = _QUOTE_MARKS.search(word) is not None
        terminator = _QUOTE_MARKS.sub(r"\1", word)
        kind = _Kind.VERBATIM if is_verbatim else _Kind.DOCUMENT
        self._announced.append(_Announced(terminator, not tabs, kind))
        return len(match[0])

    def _open_document(self, position: int) -> None:
        """Open the next announced here-document, whose text begins at ``position``.

        Without its last line it takes all that follows.
        """
        if self._announced:
            terminator, keeps_tabs, kind = self._announced.pop(0)
            indent = "" if keeps_tabs else r"\t*"
            last = re.compile(rf"^{indent}{re.escape(terminator)}$", re.MULTILINE)
            end = last.search(self._text, position)
            self._document = (end.end() if end else len(self._text), len(self._open))
            opened = _Open(kind, position, terminator=terminator, keeps_tabs=keeps_tabs)
            self._open.append(opened)
