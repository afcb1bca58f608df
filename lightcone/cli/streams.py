"""The streams of ``lc``: messages on standard error, and errors of writing."""

from __future__ import annotations

import codecs
import contextlib
import io
import locale
import os
import select
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TextIO, cast

import click

from lightcone.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["checked_stream", "notify", "print_last", "warn"]


def notify(text: str) -> None:
    """Print a line on standard error, apart from the results on standard output."""
    click.echo(f"lc: {text}", err=True)


def warn(warnings: Iterable[str]) -> None:
    """Print a line for each warning on standard error."""
    for text in warnings:
        notify(f"warning: {text}")


def checked_stream(stream: TextIO | None) -> TextIO:
    """Wrap a standard stream, so that failed writes raise OutputError.

    Writing and flushing raise OutputError, but for a reader that leaves, and nothing for what
    cannot be encoded; they wait, also on a stream that others do not want to wait for. Where there
    is no stream, nothing is written.
    """
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding = stream.encoding
    if sys.flags.utf8_mode and stream.isatty():
        # A terminal shows the characters of the locale, in which ``lc`` may have begun.
        encoding = locale.getencoding()
        encoding = "utf-8" if codecs.lookup(encoding).name == "ascii" else encoding
    return io.TextIOWrapper(
        io.BufferedWriter(_CheckedFile(stream.fileno(), "w", closefd=False)),
        encoding=encoding,
        errors="replace",  # names and messages may have what not every terminal can write
        line_buffering=stream.line_buffering,
    )


def print_last(report: Callable[[], None] | None) -> None:
    """Print a last message, and discard output that cannot be written."""
    with contextlib.suppress(OutputError, OSError):
        if report is not None:
            report()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OutputError, OSError, KeyboardInterrupt):
            # Or it would be tried again as the interpreter ends, who then has an exit code of his.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _CheckedFile(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            # None where that would have to wait, as a program wants it that has the terminal too.
            while (written := cast("int | None", super().write(data))) is None:
                select.select([], [self], [])
            return written
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"What lc prints could not be written ({error.strerror}): make room there, or send "
                "it elsewhere."
            ) from error
