"""References of a script in any language that is read: the reader that its file asks for."""

from __future__ import annotations

import json
import re
import textwrap
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

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

__all__ = ["READ", "Reader", "is_script", "read_commands", "read_script", "reader_of"]

READ = 4 << 20
"""The bytes of a script that are read; of a notebook, which may hold pictures, more."""

_READ_OF_NOTEBOOK = 64 << 20

Reader = Callable[[str], References]

_PYTHON = (".py", ".pyw")
_SHELL = (".sh", ".bash", ".zsh", ".ksh")
# What is written in these is one literal after the other to us: ``source("b.R")``.
_LITERAL = (".R", ".r", ".Rmd", ".rmd", ".qmd", ".Rnw", ".jl")
_MAKE = (".mk", ".mak")
_MAKEFILES = ("Makefile", "makefile", "GNUmakefile")
_NOT_READ = (
    *(".pl", ".rb", ".js", ".ts", ".lua", ".m", ".do", ".sas", ".sps", ".stan", ".awk", ".sed"),
    *(".smk", ".nf", ".wdl", ".cwl", ".scala", ".groovy", ".tcl", ".pro", ".C", ".nb", ".wl"),
    *("Snakefile", ".tex", ".c", ".cc", ".cpp", ".cu", ".f", ".f90", ".go", ".rs", ".java"),
)
_RUN_BY_PYTHON = re.compile(rb"#!.*\bpython")
_RUN_BY_SHELL = re.compile(rb"#!.*\b(?:ba|z|k|da)?sh\b")
_RUN_BY_LITERAL = re.compile(rb"#!.*\b(?:Rscript|littler|julia)\b")
_RUN_BY_MAKE = re.compile(rb"#!.*\bmake\b")

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

# A here-document, or the program that follows -c.
_EMBEDDED = re.compile(
    r"<<-?[ \t]*['\"]?(\w+)['\"]?[^\n]*\n(.*?)\n[ \t]*\1\b"
    r"|(?<!\S)-c\s+('[^']*'|\"(?:[^\"\\]|\\.)*\")",
    re.DOTALL,
)
_MAGIC_LINE = re.compile(r"^([ \t]*)([%!].*)$", re.MULTILINE)
_RUN_MAGIC = re.compile(r"[ \t]*%(?:run|load)[ \t]+(?:-\w+[ \t]+)*(\S+)")


def is_script(name: str) -> bool:
    """Return whether a file's name is that of a script that is run or brought in by another."""
    return name.endswith((*_PYTHON, *_SHELL, ".R", ".r", ".jl"))


def reader_of(name: str, head: bytes) -> Reader | None:
    """Return the reader of a file by its name and first bytes; None where it is no script."""
    base = name.rpartition("/")[2]
    if name.endswith(_PYTHON):
        return read_python
    if name.endswith(_SHELL):
        return read_commands
    if name.endswith(_LITERAL):
        return _read_literals
    if name.endswith(".ipynb"):
        return _read_notebook
    if base in _MAKEFILES or name.endswith(_MAKE):
        return _read_makefile
    if head.startswith(b"#!"):
        if _RUN_BY_PYTHON.match(head):
            return read_python
        if _RUN_BY_SHELL.match(head):
            return read_commands
        if _RUN_BY_LITERAL.match(head):
            return _read_literals
        return _read_makefile if _RUN_BY_MAKE.match(head) else _read_nothing
    return _read_nothing if name.endswith(_NOT_READ) else None


def read_script(reader: Reader, content: bytes) -> References:
    """Return what the content of a script refers to."""
    limit = _READ_OF_NOTEBOOK if reader is _read_notebook else READ
    read = reader(content[:limit].decode(errors="replace").replace("\r\n", "\n"))
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
    for match in _EMBEDDED.finditer(text):
        body = match[2] if match[1] else re.sub(r"\\([\"$`\\])", r"\1", match[3][1:-1])
        line = text.count("\n", 0, match.start()) + 1
        python = read_python(textwrap.dedent(body))
        found = tuple(
            each._replace(line=line, kind=Kind.RUN if each.kind is Kind.MODULE else each.kind)
            for each in python.found
        )
        several.append(python._replace(found=found, not_followed=()))
    return merged(several)


def _read_nothing(text: str) -> References:
    """Return that scripts of this language are not read."""
    return References(not_followed=(NotFollowed(WHOLE_SCRIPT, "its language is not read"),))


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
            if not path or not (is_like_a_path(path) or _LISTS.search(row, 0, match.start())):
                continue
            before = row[: match.start()]
            if _WRITES.search(before):
                continue
            if _LISTS.search(before):
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
        return _read_nothing("")
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
