"""Languages of scripts, by the name and the first bytes of a file."""

from __future__ import annotations

import re
from enum import StrEnum

from lightcone.state.references import WHOLE_SCRIPT, NotFollowed, References

__all__ = ["NOT_READ", "Language", "is_script", "language_of"]

NOT_READ = References(not_followed=(NotFollowed(WHOLE_SCRIPT, "its language is not read"),))
"""What a script of a language that is not read refers to."""

_PYTHON = (".py", ".pyw")
_SHELL = (".sh", ".bash", ".zsh", ".ksh")
_LITERAL = (".R", ".r", ".Rmd", ".rmd", ".qmd", ".Rnw", ".jl")
_MAKE = ("/Makefile", "/makefile", "/GNUmakefile", ".mk", ".mak")
_OTHER = (
    *(".pl", ".rb", ".js", ".ts", ".lua", ".m", ".do", ".sas", ".sps", ".stan", ".awk", ".sed"),
    *(".smk", ".nf", ".wdl", ".cwl", ".scala", ".groovy", ".tcl", ".pro", ".C", ".nb", ".wl"),
    *("/Snakefile", ".tex", ".c", ".cc", ".cpp", ".cu", ".f", ".f90", ".go", ".rs", ".java"),
)
_INTERPRETER = re.compile(
    rb"#!.*\b(?:(?P<python>python)|(?P<shell>(?:ba|z|k|da)?sh\b)|(?P<literal>(?:Rscript|littler|"
    rb"julia)\b)|(?P<make>make\b))"
)


class Language(StrEnum):
    """The languages of scripts.

    ``LITERAL`` are R and Julia, of which only the literal paths are read; ``OTHER`` is not read.
    """

    PYTHON = "python"
    SHELL = "shell"
    LITERAL = "literal"
    NOTEBOOK = "notebook"
    MAKE = "make"
    OTHER = "other"


_ENDS = (
    (_PYTHON, Language.PYTHON),
    (_SHELL, Language.SHELL),
    (_LITERAL, Language.LITERAL),
    ((".ipynb",), Language.NOTEBOOK),
    (_MAKE, Language.MAKE),
)


def is_script(name: str) -> bool:
    """Return whether a file's name is that of a script that is run or brought in by another."""
    return name.endswith((*_PYTHON, *_SHELL, ".R", ".r", ".jl"))


def language_of(path: str, head: bytes) -> Language | None:
    """Return the language of a file by its path and first bytes; None where it is no script."""
    for ends, language in _ENDS:
        if path.endswith(ends):
            return language
    if head.startswith(b"#!"):
        match = _INTERPRETER.match(head)
        return Language(match.lastgroup or "other") if match else Language.OTHER
    return Language.OTHER if path.endswith(_OTHER) else None
