"""Words of a shell text that may be files, and those that it writes to."""

from __future__ import annotations

import re

__all__ = ["QUOTING", "WORD", "split_words", "unquoted", "written_words"]

WORD = re.compile(r"[^\s;|&<>()'\"`]+")
QUOTING = re.compile(r"['\"\\]")
_WITH_SPACES = re.compile(
    r"""'[^'\n]* [^'\n]*'|"[^"\n]* [^"\n]*"|(?:[^\s\\'"]|\\.)*\\ (?:[^\s\\'"]|\\.)*"""
)
_WRITTEN = re.compile(
    r""">>?[|&]?[ \t]*('[^'\n]*'|"[^"\n]*"|[^\s;|&<>()'"`]+)|(?<![\w.-])tee[ \t]([^\n;|&<>()]+)"""
)


def split_words(text: str) -> list[str]:
    """Return the words of a text, those in quotes whole and in pieces."""
    words: list[str] = WORD.findall(text)
    if QUOTING.search(text) is None:
        return words
    return words + [unquoted(quoted) for quoted in _WITH_SPACES.findall(text)]


def written_words(text: str) -> list[str]:
    """Return the words that a text writes to."""
    words = []
    for redirected, teed in _WRITTEN.findall(text):
        words += [unquoted(redirected)] if redirected else split_words(teed)
    return words


def unquoted(word: str) -> str:
    """Return a word without its quotes and backslashes."""
    return re.sub(r"\\(.)", r"\1", word.strip("'\""))
