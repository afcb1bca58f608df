"""Readers of scripts: what a text of each language refers to.

They are imported where a text is read that no plan has read before, as their regular expressions
take longer to compile than a call of ``lc status`` may take.
"""

from __future__ import annotations

import json
import re
import textwrap
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from lightcone.state import shell_words
from lightcone.state.languages import NOT_READ, Language
from lightcone.state.python_references import read_python
from lightcone.state.references import (
    WHOLE_SCRIPT,
    Kind,
    NotFollowed,
    Reference,
    References,
    is_like_a_path,
    merged,
)
from lightcone.state.shell_references import read_shell

__all__ = ["READ", "read_script"]

READ = 4 << 20
"""The bytes of a script that are read; of a notebook, which may hold pictures, more."""

_READ_OF_NOTEBOOK = 64 << 20

_TEXT = re.compile(r"""#[^\n]*|"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)'""")
_JOINED = re.compile(
    r"""\b(?:file\.path|here|here::here|joinpath)\(\s*((?:"[^"\n]*"|'[^'\n]*')(?:\s*,\s*(?:"[^"\n]*"|'[^'\n]*'))+)\s*\)"""
)
_WRITES = re.compile(
    r"\b(?:write\w*(?:\.\w+)*|save\w*|ggsave|sink|pdf|png|jpeg|svg|tiff|fwrite|dput|dump|file\.create"
    r"|dir\.create|unlink|savefig)\s*\((?:[^()]|\([^()]*\))*$"
)
_BRINGS_IN = re.compile(
    r"\b(source|sys\.source|include|readRDS|read(?:\.\w+|_\w+)|load|fread|read_chunk)\s*\(\s*"
    r"([A-Za-z_.][^\"'\n]*)"
)
_CHANGES_INTO = re.compile(r"""\b(?:setwd|cd)\(\s*["']([^"'\n]+)["']""")
_LISTS = re.compile(r"""\b(?:list\.files|dir|readdir|Sys\.glob|glob)\(\s*(?:path\s*=\s*)?$""")

_PYTHON = re.compile(r"(?:.*/)?python[\d.]*")
# Python's flags may stand together: -uc.
_BEFORE_TEXT = re.compile(r"-[bBdEiIOPqsSuvx]*c")
# How far before a literal its call may begin: a line may be as long as the file.
_LOOKBACK = 200
_MAGIC_LINE = re.compile(r"^([ \t]*)([%!].*)$", re.MULTILINE)
_RUN_MAGIC = re.compile(r"[ \t]*%(?:run|load)[ \t]+(?:-\w+[ \t]+)*(\S+)")


def read_script(language: Language, content: bytes) -> References:
    """Return what the content of a script refers to."""
    limit = _READ_OF_NOTEBOOK if language is Language.NOTEBOOK else READ
    # The shell's file names are bytes; Python's syntax needs text.
    errors = "surrogateescape" if language is Language.SHELL else "replace"
    text = content[:limit].decode(errors=errors).replace("\r\n", "\n")
    read = _READERS[language](text)
    if len(content) <= limit:
        return read
    cut = NotFollowed(WHOLE_SCRIPT, f"only its first {limit >> 20} MiB are read")
    return read._replace(not_followed=(*read.not_followed, cut))


def read_commands(text: str) -> References:
    """Return what a command or a shell script refers to, Python within it included."""
    read = read_shell(text)
    if "import" not in text and "python" not in text:
        return read
    several = [read]
    for body, line, is_python in _programs(text):
        python = read_python(textwrap.dedent(body))
        found = tuple(
            each._replace(line=line, kind=Kind.RUN if each.kind is Kind.MODULE else each.kind)
            for each in python.found
        )
        unread = tuple(
            each._replace(line=line) for each in python.not_followed if each.what != WHOLE_SCRIPT
        )
        several.append(python._replace(found=found, not_followed=unread if is_python else ()))
    return merged(several)


def _programs(text: str) -> Iterator[tuple[str, int, bool]]:
    """Yield the here-documents and what follows ``-c``, and whether Python certainly runs it."""
    for command in shell_words.read_commands(text):
        is_python = any(_PYTHON.fullmatch(word.text) for word in command.words)
        for number, word in enumerate(command.words):
            after_c = number and _BEFORE_TEXT.fullmatch(command.words[number - 1].text)
            if word.redirect == "<<" or (after_c and not word.redirect):
                yield shell_words.bare(word.text), word.line, is_python


def _read_makefile(text: str) -> References:
    return read_shell(text, is_make=True)


def _read_literals(text: str) -> References:
    """Return the literal paths of a script in R or Julia, or of a text around such scripts."""
    found, not_followed = [], []
    for match in _JOINED.finditer(text):
        parts = [one or other for one, other in re.findall(r"\"([^\"]*)\"|'([^']*)'", match[1])]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Reference(Kind.PATH, "/".join(parts), line))
    for number, row in enumerate(text.split("\n"), 1):
        for match in _TEXT.finditer(row):
            path = match[1] or match[2]
            before = row[max(0, match.start() - _LOOKBACK) : match.start()]
            is_list = _LISTS.search(before) is not None
            if not path or not (is_list or is_like_a_path(path)) or _WRITES.search(before):
                continue
            if is_list:
                path = path if "*" in path else f"{path}/*"
                found.append(Reference(Kind.PATTERN, path, number))
            else:
                found.append(Reference(Kind.PATH, path, number))
        code = row.partition("#")[0]
        for match in _BRINGS_IN.finditer(code) if "(" in code else ():
            if not _JOINED.match(code, match.start(2)):
                what = f"{match[1]}({match[2].strip()}"
                not_followed.append(NotFollowed(what, "the path is computed", number))
    directories = tuple(_CHANGES_INTO.findall(text))
    return References(tuple(dict.fromkeys(found)), (), directories, tuple(not_followed))


def _read_notebook(text: str) -> References:
    """Return what the cells of a notebook refer to; their lines are the numbers of the cells."""
    try:
        notebook = json.loads(text)
        cells = [_source(each) for each in notebook["cells"] if each.get("cell_type") == "code"]
        language = _language(notebook.get("metadata") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        reason = NotFollowed("the notebook", "its cells cannot be read")
        return References(not_followed=(reason,))
    if language in ("R", "julia"):
        return _read_literals("\n".join(cells))
    if language != "python":
        return NOT_READ
    codes, several = [], []
    for number, cell in enumerate(cells, 1):
        first, _, rest = cell.lstrip().partition("\n")
        if first.startswith(("%%bash", "%%sh")):
            several.append(_in_cells(read_shell(rest), [0], number))
        is_foreign = first.startswith("%%") and not first.startswith(("%%time", "%%capture"))
        codes.append("" if is_foreign else _MAGIC_LINE.sub(r"\1pass", cell))
        for command in () if is_foreign else _commands(cell):
            several.append(_in_cells(read_shell(command), [0], number))
    starts = list(accumulate((code.count("\n") + 1 for code in codes), initial=1))
    whole = read_python("\n".join(codes))
    if any(each.what == WHOLE_SCRIPT for each in whole.not_followed):
        each_alone = enumerate(map(read_python, codes), 1)
        several += [_in_cells(read, [0], number) for number, read in each_alone]
    else:
        several.append(_in_cells(whole, starts, 0))
    return merged(several)


def _commands(cell: str) -> Iterator[str]:
    for _, line in _MAGIC_LINE.findall(cell):
        run = _RUN_MAGIC.match(line)
        if run is not None:
            yield run[1]
        elif line.startswith("!"):
            yield line[1:]


def _in_cells(read: References, starts: list[int], first: int) -> References:
    """Return references whose lines are numbers of cells, which begin at the lines ``starts``."""

    def cell(line: int) -> int:
        return first or bisect_right(starts, line)

    return read._replace(
        found=tuple(each._replace(line=cell(each.line)) for each in read.found),
        not_followed=tuple(each._replace(line=cell(each.line)) for each in read.not_followed),
    )


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _language(metadata: dict[str, Any]) -> str:
    named = (metadata.get("kernelspec") or {}).get("language")
    name = named or (metadata.get("language_info") or {}).get("name") or "python"
    return "python" if str(name).startswith(("python", "ipython")) else str(name)


_READERS = {
    Language.PYTHON: read_python,
    Language.SHELL: read_commands,
    Language.LITERAL: _read_literals,
    Language.NOTEBOOK: _read_notebook,
    Language.MAKE: _read_makefile,
}
