"""References of a shell text: a command, a shell script or a Makefile.

Every word that may be the path of a file is one, and every part of a word after ``=`` or between
``,`` and ``:``, or after ``@``. Variables that the text itself sets are filled in, and so are
``$PWD``, ``$(pwd)``, the script's own directory and ``~``; what stands in braces is multiplied out.
Of a path that begins with another variable, what follows it is a guess. Words that the text shows
to be written (``>``, ``tee``, the targets of a Makefile) are no references.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from lightcone.state.references import (
    HERE,
    Kind,
    NotFollowed,
    Reference,
    References,
    join,
    parent,
)
from lightcone.state.shell_words import QUOTING, WORD, split_words, unquoted, written_words

__all__ = ["read_shell"]

_TARGETS = re.compile(r"^(?![\t#])([^=:#\n]+):(?![:=])", re.MULTILINE)

# Words as the shell joins them: plain, within quotes, or both in turn.
_SHELL_WORD = re.compile(
    r"""(?:[^\s;|&<>()'"`\\]+|\\.|'[^']*'|"(?:[^"\\]|\\.)*"|\$\([^()]*\))+""", re.DOTALL
)
_PIECE = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|(\\.)|([^'"\\]+|.)""", re.DOTALL)
_BRACES = re.compile(r"(?<!\$)\{([^{}\s]*,[^{}\s]*|(\d{1,9})\.\.(\d{1,9}))\}")
_MAGIC = re.compile(r"[*?]|\[[^\]]+\]")

_SELF = r"(?:\$0|\$\{0\}|\$\{?BASH_SOURCE(?:\[0\])?(?::-\$0)?\}?)"
_QUIET = r"(?:\s*(?:&|\d)?>+\s*(?:/dev/null|&\d))*"
_PLAIN = r"[^\s$;|&<>()'\"`]+"
_KNOWN = (
    (re.compile(rf"\$\(\s*(?:readlink\s+-[ef]+|realpath)\s+(?:--\s+)?\"?({_SELF})\"?\s*\)"), r"\1"),
    (re.compile(rf"(?:\$\(|`)\s*dirname\s+(?:--\s+)?\"?{_SELF}\"?\s*(?:\)|`)"), HERE),
    (re.compile(r"\$\{(?:0|BASH_SOURCE(?:\[0\])?)%/\*\}"), HERE),
    (re.compile(r"(?:\$\(|`)\s*pwd(?:\s+-[LP])?\s*(?:\)|`)|\$PWD\b|\$\{PWD\}|\$\(CURDIR\)"), "."),
    (
        re.compile(
            rf"\$\(\s*cd\s+(?:--\s+)?[\"']?({_PLAIN})[\"']?{_QUIET}\s*(?:&&|;)\s*pwd(?:\s+-[LP])?\s*\)"
        ),
        r"\1",
    ),
    (re.compile(rf"\$\(\s*(?:readlink\s+-[ef]+|realpath)\s+[\"']?({_PLAIN})[\"']?\s*\)"), r"\1"),
)
_DIRNAME = re.compile(rf"\$\(\s*dirname\s+(?:--\s+)?[\"']?({_PLAIN})[\"']?\s*\)")
_ASSIGNED = re.compile(
    r"""(?:^|[\s;&|({])([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s;&|()<>'"`]*)(?=[\s;&|)<>]|$)"""
)
_ASSIGNED_IN_MAKE = re.compile(
    r"^(?:export[ ]+)?([\w.-]+)[ \t]*(?:::?|\?|\+)?=[ \t]*([^\n#]*)", re.MULTILINE
)
_LOOP = re.compile(r"\bfor\s+([A-Za-z_]\w*)\s+in\s+([^;\n]+)")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?[-=]([^{}]*))?\})")
_VARIABLE_IN_MAKE = re.compile(r"\$[({]([\w.-]+)()()[)}]")
_UNRESOLVED = re.compile(r"\$(?:\w+|\{[^}]*\}|\([^)]*\)?)|`")
_COMPUTED = re.compile(r"(?:\$(?:\w+|\{[^}]*\}|\([^)]*\)))?/")
_LIKE_A_PATH = re.compile(r".*(?:/|\.\w{1,8}$)", re.DOTALL)

_CD = re.compile(
    r"(?:\b(?:cd|pushd)\s+(?:--\s+)?|(?<!\S)-C\s*|--directory=)[\"']?([^\s;|&<>()'\"`]+)"
)
_PYTHON_PATH = re.compile(r"\bPYTHONPATH=[\"']?([^\s;|&<>()'\"`]+)")
_MODULE = re.compile(r"(?<!\S)-m[ \t]*([A-Za-z_][\w.]*)")
_RUN_DIRECTORY = re.compile(r"\bpython[\d.]*\s+(?:-\w+\s+)*([\w./]*\w)/?(?![\w/.])")
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*")
_CASE = re.compile(r"^\s*\(?[^\s()]+(?:\s*\|\s*[^\s()]+)*\)", re.MULTILINE)
_BY_DEFAULT = re.compile(r"(?:^|[\s;&|(/])(g?make|snakemake)((?:\s[^\n;&|]*)?)(?=[;&|)\n]|$)")
_DEFAULT_FILES = {"snakemake": ("Snakefile", "workflow/Snakefile")}
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
_MAX_VALUES = 64

_Variables = dict[str, tuple[str, ...]]


class _Word(NamedTuple):
    """A word as the shell sees it.

    ``pattern`` is the word as a pattern, in which what is quoted stands for itself; ``literal`` is
    whether single quotes keep ``$`` from meaning anything.
    """

    text: str
    pattern: str
    literal: bool


def read_shell(text: str, *, is_make: bool = False) -> References:
    """Return what a shell text or a Makefile refers to."""
    text, variables = _resolve(text, is_make)
    found: list[Reference] = []
    unresolved: list[NotFollowed] = []
    written = set(written_words(text))
    if is_make:
        written |= {word for targets in _TARGETS.findall(text) for word in targets.split()}
    in_case = "esac" in text
    for line, logical in _logical_lines(text):
        if in_case:
            logical = _CASE.sub("", logical)
        for word in dict.fromkeys(_words(logical)):
            for text_, is_pattern in _expanded(word, variables):
                if text_ in written:
                    continue
                if "$" in text_ and not word.literal and _UNRESOLVED.search(text_):
                    unresolved += _unresolved(text_, line, found)
                elif is_pattern:
                    found.append(Reference(Kind.PATTERN, text_, line))
                else:
                    found.append(Reference(Kind.PATH, text_, line))
        for module in _MODULE.findall(logical) if "-m" in logical else ():
            name = module.strip(".")
            found += (
                Reference(Kind.RUN, name, line),
                Reference(Kind.RUN, f"{name}.__main__", line),
            )
        for directory in _RUN_DIRECTORY.findall(logical) if "python" in logical else ():
            found.append(Reference(Kind.PATH, f"{directory}/__main__.py", line))
        for program, arguments in _BY_DEFAULT.findall(logical) if "make" in logical else ():
            found += (Reference(Kind.PATH, name, line) for name in _defaults(program, arguments))
    directories = [one for each in _CD.findall(text) for one in _values(each, variables)]
    paths = [
        one
        for each in (_PYTHON_PATH.findall(text) if "PYTHONPATH=" in text else ())
        for value in _values(each, variables)
        for one in value.split(":")
        if one
    ]
    return References(
        tuple(dict.fromkeys(found)),
        tuple(dict.fromkeys(map(_without_computed, paths))),
        tuple(map(_without_computed, directories)),
        tuple(dict.fromkeys(unresolved)),
    )


def _resolve(text: str, is_make: bool) -> tuple[str, _Variables]:
    """Fill in what the text itself shows of substitutions and variables."""
    variables: _Variables = {}
    if "$" not in text and "`" not in text:
        return text, variables
    pattern = _VARIABLE_IN_MAKE if is_make else _VARIABLE
    for _ in range(5):
        before = text
        for known, instead in _KNOWN:
            text = known.sub(instead, text)
        text = _DIRNAME.sub(lambda match: parent(match[1]), text)
        variables = _variables(text, is_make)

        def fill(match: re.Match[str]) -> str:
            values = variables.get(match[1] or match[2], ())  # noqa: B023
            if not values and match[3]:
                return match[3]
            return values[0] if len(values) == 1 else match[0]

        text = pattern.sub(fill, text)
        if text == before or len(text) > len(before) + (1 << 20):
            break
    return text, variables


def _variables(text: str, is_make: bool) -> _Variables:
    variables: dict[str, list[str]] = {}
    for name, value in (_ASSIGNED_IN_MAKE if is_make else _ASSIGNED).findall(text):
        value = value.strip() if is_make else unquoted(value)
        # One that is added to, as PYTHONPATH=lib:$PYTHONPATH, is what is added.
        for itself in (f"${name}", f"${{{name}}}", f"$({name})"):
            value = value.replace(itself, "")
        variables.setdefault(name, []).append(value)
    for name, words in _LOOP.findall(text):
        if "$" not in words:
            variables.setdefault(name, []).extend(split_words(words)[:_MAX_VALUES])
    return {
        name: tuple(dict.fromkeys(values))
        for name, values in variables.items()
        if not any("$" in value or "`" in value for value in values)
    }


def _words(line: str) -> Iterator[_Word]:
    end_of_comment = 0
    for match in _SHELL_WORD.finditer(line):
        whole = match[0]
        if match.start() < end_of_comment:
            continue
        if whole[0] == "#" and not line[: match.start()].endswith(tuple("'\"&|<>()`")):
            end_of_comment = (line.find("\n", match.start()) + 1) or len(line)
            continue
        if not QUOTING.search(whole):
            yield _Word(whole, whole, False)
            continue
        text, pattern, literal = "", "", False
        for single, double, escaped, plain in _PIECE.findall(whole):
            quoted = single or re.sub(r"\\(.)", r"\1", double) or escaped[1:]
            literal = literal or "$" in single
            text += quoted or plain
            pattern += re.sub(r"([*?[])", r"[\1]", quoted) or plain
        yield _Word(text, pattern, literal)
        if any(mark in text for mark in " \n'\"("):
            # A program of another language, or a command within a command.
            for piece in WORD.findall(text):
                yield _Word(piece, re.sub(r"([*?[])", r"[\1]", piece), literal)


def _expanded(word: _Word, variables: _Variables) -> Iterator[tuple[str, bool]]:
    """Yield the paths that a word may stand for, and whether each is a pattern."""
    for text, pattern in _filled(word, variables):
        pieces = [text, *_pieces(text)] if _MARKS.search(text) else [text]
        for piece in pieces:
            if piece and len(piece) < 1024 and "\n" not in piece:
                is_pattern = _is_pattern(piece, pattern if piece == text else piece)
                yield os.path.expanduser(piece) if piece[0] == "~" else piece, is_pattern


_MARKS = re.compile(r"[=,:@]|^-\w")


def _pieces(text: str) -> Iterator[str]:
    """Yield the parts of a word that may be paths: of ``-f=a,b``, ``@a`` or ``-fa``."""
    for piece in re.split(r"[=,:]", text):
        yield piece
        if piece.startswith("@"):
            yield piece[1:]
    yield text.partition("=")[2]
    if re.match(r"-\w[\w./]", text):
        yield text[2:]


def _is_pattern(text: str, pattern: str) -> bool:
    """Return whether the shell, or else the program that gets it, expands a word.

    A quoted pattern counts if it has a directory: ``"data/*.csv"``, but not ``-name '*.csv'``.
    """
    if _MAGIC.search(text) is None or text.startswith("-"):
        return False
    unquoted = re.sub(r"\[[*?[]\]", "", pattern)
    return _MAGIC.search(unquoted) is not None or ("/" in text and " " not in text)


def _filled(word: _Word, variables: _Variables) -> list[tuple[str, str]]:
    """Return the texts and patterns of a word with its variables and braces filled in."""
    filled = [(word.text, word.pattern)]
    if "$" in word.text and not word.literal:
        for match in _VARIABLE.finditer(word.text):
            values = variables.get(match[1] or match[2], ())
            if values and len(filled) * len(values) <= _MAX_VALUES:
                filled = [
                    (text.replace(match[0], value), pattern.replace(match[0], value))
                    for text, pattern in filled
                    for value in values
                ]
    if "{" in word.text and not word.literal:
        filled = [
            (one, one) if one != text else (text, pattern)
            for text, pattern in filled
            for one in _multiplied(text)
        ]
    return filled


def _multiplied(text: str) -> list[str]:
    """Return the words that the shell makes of one with braces: ``a{b,c}`` of two."""
    texts = [text]
    for _ in range(4):
        more = []
        for each in texts:
            match = _BRACES.search(each)
            if match is None:
                more.append(each)
                continue
            if match[2]:
                first, last = int(match[2]), int(match[3])
                width = len(match[2]) if match[2].startswith("0") else 0
                span = range(min(first, last), min(max(first, last), first + 1000) + 1)
                options = [f"{number:0{width}d}" for number in span]
            else:
                options = match[1].split(",")
            more += [each[: match.start()] + option + each[match.end() :] for option in options]
        if more == texts or len(more) > 4 * _MAX_VALUES:
            break
        texts = more
    return texts


def _unresolved(text: str, line: int, found: list[Reference]) -> Iterator[NotFollowed]:
    """Note the end of a word as a guess, if only its beginning is unresolved."""
    if not _LIKE_A_PATH.match(text):
        return
    rest = _without_computed(text)
    if rest != text and "$" not in rest and "`" not in rest:
        found.append(Reference(Kind.GUESS, rest, line, text))
    else:
        yield NotFollowed(text, "a variable in it is not set here", line)


def _defaults(program: str, arguments: str) -> Iterator[str]:
    """Yield the files that a program looks for where no argument names one."""
    if re.search(r"(?<!\S)(?:-f|-s|--file|--makefile|--snakefile)", arguments) is None:
        moved = _CD.search(arguments)
        for name in _DEFAULT_FILES.get(program, _MAKEFILES):
            yield join(moved[1] if moved else ".", name)


def _values(text: str, variables: _Variables) -> list[str]:
    """Return the values of a word of which only variables are to be filled in."""
    return [each for each, _ in _filled(_Word(text, text, False), variables)]


def _without_computed(path: str) -> str:
    """Return a path without the variable or substitution at its beginning."""
    computed = _COMPUTED.match(path)
    if computed is None or not computed[0].startswith("$"):
        return path
    return path[computed.end() :]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text, continued ones as one, with their numbers.

    A line with an open quote is continued, too.
    """
    number, start, waiting = 1, 1, ""
    for line in text.split("\n"):
        waiting += line
        number += 1
        if line.endswith("\\"):
            waiting = waiting[:-1] + " "
        elif _is_open(waiting):
            waiting += "\n"
        else:
            yield start, waiting
            start, waiting = number, ""
    if waiting:
        yield start, waiting


def _is_open(text: str) -> bool:
    """Return whether a quote is open at the end of a text, unless it is an apostrophe."""
    if len(text) > 1 << 13 or ("'" not in text and '"' not in text):
        return False
    rest = _SHELL_WORD.sub("", _COMMENT.sub("", text))
    return "'" in rest or '"' in rest
