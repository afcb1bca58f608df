"""Words and commands of a shell text, as bash reads them.

The text is read once, from its beginning to its end: quotes of each kind, also within a word,
backslashes, comments, substitutions, redirections and here-documents. What stands in quotes with
spaces may be a program, so its words are read, too. A quote that is never closed ends a word.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "QUOTING",
    "WORD",
    "Command",
    "Word",
    "bare",
    "read_commands",
    "split_words",
    "unquoted",
    "written_by",
]

WORD = re.compile(r"[^\s;|&<>()'\"`]+")
QUOTING = re.compile(r"['\"\\]")


# Characters without a meaning, because they are quoted, stand for themselves by others.
_QUOTED = str.maketrans("${}~`()", "\ue000\ue001\ue002\ue003\ue004\ue005\ue006")
_BARE = str.maketrans("\ue000\ue001\ue002\ue003\ue004\ue005\ue006", "${}~`()")

# In a program, parentheses have theirs again.
_IN_PROGRAM = str.maketrans("\ue004\ue005\ue006", "`()")

_PLAIN = re.compile(r"[^\s;|&<>()'\"`\\$]+")
_IN_QUOTES = re.compile(r"[^\"\\`$]+")
_EXPANSION = re.compile(
    r"\$(?:[A-Za-z_]\w*|[0-9?!#@*$-]|\{(?:[^{}]|\{[^{}]{0,999}\}){0,999}\})", re.DOTALL
)
_ANSI = re.compile(r"\$'([^'\\]*(?:\\.[^'\\]*)*)'", re.DOTALL)
_DEFAULT = re.compile(r"\$\{\w+:?[-=+](.*)\}", re.DOTALL)
_OPERATOR = re.compile(r"<<<|<<-?|&>>?|[<>]&|>>|>\||<>|[<>]|;;&|;;|;&|\|\||&&|\|&|[;&|]")
_END_OF_DOCUMENT = re.compile(r"[ \t]*((?:'[^'\n]*'|\"[^\"\n]*\"|\\.|[^\s;|&<>()'\"`\\])+)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_MAGIC = re.compile(r"([*?[])")
_IS_MORE = re.compile(r"[;|&<>()'\"`\\\n#$]")
_HAS_MEANING = re.compile(r"[*?[${}~`()]")
_LONGEST_ORIGIN = 60
_MOST_RESTARTS = 8
_DEEPEST = 3
_DEEPEST_FRAMES = 200


class Word(NamedTuple):
    """A word as the shell sees it.

    Attributes:
        text: without its quotes; quoted characters with a meaning are replaced (see ``bare``).
        pattern: the word as a pattern, in which what is quoted stands for itself.
        line: the line in which it begins.
        redirect: the operator before it, such as ``>``; ``<<`` before a here-document's text.
    """

    text: str
    pattern: str
    line: int = 1
    redirect: str = ""


class Command(NamedTuple):
    """A simple command.

    Attributes:
        words: its words and the targets of its redirections.
        operator: the operator that stands before it.
        is_quoted: whether it stands in quotes, so that it may be no command.
    """

    words: tuple[Word, ...]
    operator: str = ""
    is_quoted: bool = False


def bare(text: str) -> str:
    """Return the text of a word with its quoted characters as they are."""
    return text.translate(_BARE)


@lru_cache(maxsize=8)
def read_commands(text: str) -> tuple[Command, ...]:
    """Return the commands of a text, those in quotes and substitutions included."""
    return tuple(_Lexer(text, 1, 0).commands())


def split_words(text: str) -> list[str]:
    """Return the words of a text, without their quotes, those in quotes whole and in pieces."""
    if QUOTING.search(text) is None:
        return WORD.findall(text)
    words = (bare(word.text) for each in read_commands(text) for word in each.words)
    return list(dict.fromkeys(words))


def written_by(command: Command) -> Iterator[Word]:
    """Yield the words of a command that it writes to."""
    is_teed = False
    for word in command.words:
        if ">" in word.redirect or (is_teed and not word.redirect):
            yield word
        is_teed = is_teed or (not word.redirect and word.text == "tee")


def unquoted(word: str) -> str:
    """Return a word without its quotes and backslashes, but with its variables."""
    commands = _Lexer(word, 1, _DEEPEST).commands()
    return commands[-1].words[-1].text if commands else ""


@dataclass(slots=True)
class _Frame:
    """A text with commands: the whole, or what stands in parentheses or backticks.

    ``quote`` is where a double quote was opened and not yet closed; ``cases`` counts the ``case``
    whose ``esac`` is to come, and ``in_pattern`` is whether a pattern of one is read.
    """

    kind: str
    start: int
    text: list[str] = field(default_factory=list)
    pattern: list[str] = field(default_factory=list)
    begin: int = -1
    quote: int = -1
    words: list[Word] = field(default_factory=list)
    operator: str = ""
    redirect: str = ""
    cases: int = 0
    in_pattern: bool = False
    is_quoted: bool = False


class _Lexer:
    """Lexer of one text; ``depth`` is the number of quotes around it."""

    def __init__(self, text: str, line: int, depth: int) -> None:
        self._text = text
        self._line = line
        self._depth = depth
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._frames = [_Frame("", 0)]
        self._commands: list[Command] = []
        self._announced: list[tuple[re.Pattern[str], bool]] = []
        self._documents: list[Word] = []
        self._absent: set[str] = set()

    def commands(self) -> list[Command]:
        """Return the commands of the text, each after those in its substitutions."""
        position = 0
        for _ in range(_MOST_RESTARTS):
            position = self._read(position)
            opened = next((each for each in self._frames if each.quote >= 0), None)
            if opened is None:
                break
            # Never closed, so it was no quote: what follows it is read again without.
            position = opened.quote + 1
            del self._frames[self._frames.index(opened) + 1 :]
            opened.quote = -1
            self._end_word(opened)
        else:
            words = WORD.findall(self._text, position)
            self._commands.append(Command(tuple(Word(each, each, self._line) for each in words)))
        for frame in reversed(self._frames):
            frame.in_pattern = False
            self._end_command(frame, "")
        if self._documents:
            return list(map(self._with_documents, self._commands))
        return self._commands

    def _with_documents(self, command: Command) -> Command:
        if all(each.redirect != "<<" or each.pattern for each in command.words):
            return command
        known = dict(enumerate(self._documents))
        words = tuple(
            known.get(int(each.text), each) if each.redirect == "<<" and not each.pattern else each
            for each in command.words
        )
        return command._replace(words=words)

    def _read(self, position: int) -> int:
        text = self._text
        end = len(text)
        while position < end:
            frame = self._frames[-1]
            run = (_PLAIN if frame.quote < 0 else _IN_QUOTES).match(text, position)
            if run is None:
                position = self._step(frame, position)
            elif frame.quote >= 0:
                self._add_quoted(frame, run[0], position)
                position = run.end()
            elif run[0][0] == "#" and frame.begin < 0:
                # A comment ends with the line, or with the backticks around it.
                line_end = text.find("\n", position)
                position = end if line_end < 0 else line_end
                if frame.kind == "`":
                    tick = text.find("`", run.start(), position)
                    position = tick if tick >= 0 else position
            else:
                self._add(frame, run[0], position)
                position = run.end()
        return position

    def _step(self, frame: _Frame, position: int) -> int:
        """Consume what has a meaning at ``position``; return where it ends."""
        text = self._text
        character = text[position]
        if character == "\\":
            return self._escape(frame, position)
        if character == "$":
            return self._dollar(frame, position)
        if character == "`":
            if frame.kind == "`":
                return self._close(position + 1)
            return self._open("`", position, position + 1)
        if character == '"':
            if frame.quote >= 0:
                frame.quote = -1
            else:
                self._add(frame, "", position)
                frame.quote = position
            return position + 1
        if character == "'":
            closing = text.find("'", position + 1)
            if closing < 0:
                self._end_word(frame)
                return position + 1
            self._add_quoted(frame, text[position + 1 : closing], position)
            return closing + 1
        if character == "\n":
            self._end_command(frame, "\n")
            return self._read_documents(position + 1)
        if character.isspace():
            self._end_word(frame)
            return position + 1
        if character == "(":
            if frame.in_pattern:
                return position + 1
            self._end_command(frame, "(")
            return self._open("(", position, position + 1)
        if character == ")":
            return self._close_parenthesis(frame, position)
        return self._operator(frame, position)

    def _add(self, frame: _Frame, text: str, position: int) -> None:
        if frame.begin < 0:
            frame.begin = position
        frame.text.append(text)
        frame.pattern.append(text)

    def _add_quoted(self, frame: _Frame, text: str, position: int) -> None:
        if frame.begin < 0:
            frame.begin = position
        frame.is_quoted = True
        if _HAS_MEANING.search(text) is None:
            frame.text.append(text)
            frame.pattern.append(text)
        else:
            frame.text.append(text.translate(_QUOTED))
            frame.pattern.append(_MAGIC.sub(r"[\1]", text).translate(_QUOTED))

    def _escape(self, frame: _Frame, position: int) -> int:
        escaped = self._text[position + 1 : position + 2]
        if escaped == "\n":
            if frame.quote < 0 and frame.begin < 0:
                self._end_word(frame)
        elif frame.quote >= 0 and escaped not in ("$", '"', "\\", "`"):
            self._add_quoted(frame, f"\\{escaped}", position)
        else:
            self._add_quoted(frame, escaped, position)
        return position + 2

    def _dollar(self, frame: _Frame, position: int) -> int:
        text = self._text
        if text.startswith("$(", position):
            return self._open("$(", position, position + 2)
        if frame.quote < 0:
            ansi = _ANSI.match(text, position) if text.startswith("$'", position) else None
            if ansi is not None:
                plain = re.sub(r"\\(.)", lambda each: _ESCAPES.get(each[1], each[1]), ansi[1])
                self._add_quoted(frame, plain, position)
                return ansi.end()
            if text.startswith('$"', position):
                return position + 1
        expansion = _EXPANSION.match(text, position)
        if expansion is None:
            self._add(frame, "$", position)
            return position + 1
        self._add(frame, expansion[0], position)
        default = _DEFAULT.fullmatch(expansion[0])
        if default is not None and self._depth < _DEEPEST:
            self._commands += _Lexer(default[1], self._line_of(position), _DEEPEST).commands()
        return expansion.end()

    def _open(self, kind: str, position: int, inner: int) -> int:
        if len(self._frames) > _DEEPEST_FRAMES:
            return inner
        self._frames.append(_Frame(kind, position))
        return inner

    def _close(self, end: int) -> int:
        """Close the innermost frame, which the word around it contains."""
        frame = self._frames.pop()
        self._end_command(frame, "")
        if frame.kind != "(":
            inside = self._text[frame.start + len(frame.kind) : end - 1]
            if len(inside) > _LONGEST_ORIGIN:
                inside = f"{inside[: _LONGEST_ORIGIN - 3]}..."
            opening = frame.kind[0] if frame.kind in ("<(", ">(") else "$"
            inside = inside.translate(_QUOTED).replace("\n", " ")
            self._add(self._frames[-1], f"{opening}({inside})", frame.start)
        else:
            self._frames[-1].operator = ")"
        return end

    def _close_parenthesis(self, frame: _Frame, position: int) -> int:
        if frame.in_pattern:
            frame.text.clear()
            frame.pattern.clear()
            frame.words.clear()
            frame.begin = -1
            frame.in_pattern = False
            frame.operator = ")"
        elif frame.kind in ("", "`"):
            self._end_command(frame, ")")
        else:
            return self._close(position + 1)
        return position + 1

    def _operator(self, frame: _Frame, position: int) -> int:
        if self._text[position : position + 2] in ("<(", ">("):
            return self._open(self._text[position : position + 2], position, position + 2)
        match = _OPERATOR.match(self._text, position)
        if match is None:
            return position + 1
        operator = match[0]
        if operator[0] in "<>" or operator.startswith("&>"):
            if "".join(frame.text).isdecimal() and frame.begin >= 0:
                frame.text.clear()
                frame.pattern.clear()
                frame.begin = -1
            self._end_word(frame)
            if operator in ("<<", "<<-"):
                return self._announce(frame, operator, match.end())
            frame.redirect = operator
        else:
            if frame.in_pattern:
                self._end_word(frame)
                frame.words.clear()
            self._end_command(frame, operator)
            if operator[:2] in (";;", ";&") and frame.cases:
                frame.in_pattern = True
        return match.end()

    def _announce(self, frame: _Frame, operator: str, position: int) -> int:
        match = _END_OF_DOCUMENT.match(self._text, position)
        if match is None:
            return position
        is_verbatim = QUOTING.search(match[1]) is not None
        last = re.sub(r"\\(.)|['\"]", r"\1", match[1])
        indent = r"\t*" if operator == "<<-" else ""
        pattern = re.compile(rf"^{indent}{re.escape(last)}$", re.MULTILINE)
        if last in self._absent or pattern.search(self._text, match.end()) is None:
            # It is a number that is shifted, or a text that ends elsewhere.
            self._absent.add(last)
            return position
        number = len(self._documents) + len(self._announced)
        frame.words.append(Word(str(number), "", self._line_of(position), "<<"))
        self._announced.append((pattern, is_verbatim))
        return match.end()

    def _read_documents(self, position: int) -> int:
        """Read the here-documents whose text begins at ``position``; return where they end."""
        for pattern, is_verbatim in self._announced:
            end = pattern.search(self._text, position)
            text = self._text[position : end.start() if end else position]
            line = self._line_of(position)
            shown = text.translate(_QUOTED) if is_verbatim else text
            self._documents.append(Word(shown, shown, line, "<<"))
            if self._depth < _DEEPEST:
                self._commands += _program(shown, line, self._depth)
            position = min(end.end() + 1, len(self._text)) if end else position
        self._announced.clear()
        return position

    def _end_word(self, frame: _Frame) -> None:
        if frame.begin < 0:
            return
        text, pattern = "".join(frame.text), "".join(frame.pattern)
        begin, frame.begin = frame.begin, -1
        frame.text.clear()
        frame.pattern.clear()
        line = self._line_of(begin)
        frame.words.append(Word(text, pattern, line, frame.redirect))
        frame.redirect = ""
        if frame.is_quoted and self._depth < _DEEPEST and _may_be_program(text):
            self._commands += _program(text, line, self._depth)
        frame.is_quoted = False
        if text == "esac" and frame.cases:
            frame.cases -= 1
            frame.in_pattern = False
        elif text == "in" and len(frame.words) > 2 and frame.words[-3].text == "case":
            frame.cases += 1
            self._end_command(frame, "")
            frame.in_pattern = True

    def _end_command(self, frame: _Frame, operator: str) -> None:
        self._end_word(frame)
        if frame.in_pattern:
            frame.words.clear()
        if frame.words:
            command = Command(tuple(frame.words), frame.operator, self._depth > 0)
            self._commands.append(command)
            frame.words.clear()
            frame.operator = operator
        elif operator != "\n":
            frame.operator = operator

    def _line_of(self, position: int) -> int:
        return self._line + bisect_right(self._newlines, position - 1)


def _may_be_program(text: str) -> bool:
    """Return whether a quoted text may be a program, or a command."""
    return any(mark in text for mark in " \n'\"(")


def _program(text: str, line: int, depth: int) -> list[Command]:
    """Return the words of a text in quotes, which may be a program of any language."""
    text = text.translate(_IN_PROGRAM)
    pieces = tuple(
        Word(each, _MAGIC.sub(r"[\1]", each), line) for each in dict.fromkeys(WORD.findall(text))
    )
    commands = [Command(pieces, "", True)] if pieces else []
    if _IS_MORE.search(text) is None:
        return commands
    return [*commands, *_Lexer(text, line, depth + 1).commands()]
