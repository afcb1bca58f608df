"""The reports of a run, as plain lines or JSON events."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TextIO

from lightcone.spec.output import Output
from lightcone.system.units import format_seconds

__all__ = ["JsonReporter", "PlainReporter", "Reporter", "Verbosity"]


_MAX_NAMED = 3
_COUNTED = ("made", "up_to_date", "failed", "blocked", "interrupted", "left")


class Reporter:
    """Counts the results of a run; its subclasses print them.

    Its methods are called from one thread.
    """

    def __init__(self) -> None:
        self.start_time = time.monotonic()
        self.counts = Counter(dict.fromkeys(_COUNTED, 0))
        self.session = "none"
        self.resume: set[str] = set()  # how to go on from partial work: " with --resume", or ""
        self.out_of_time = False  # whether the allocation that the run is in is over

    def begin(self, total: int, session: str) -> None:
        """A cluster is ready, and the run of ``total`` outputs begins."""
        self.session = session

    def note(self, text: str) -> None:
        """Report a remark about the run."""

    def warning(self, text: str) -> None:
        """Report a part of the spec that is ignored, which is on standard error already."""

    def planned(self, output: Output, why: str) -> None:
        """Report that the output is to be made, and why."""

    def would_make(self, output: Output, why: str) -> None:
        """Report that the output would be made, and why."""
        self.counts["would_make"] += 1

    def started(self, output: Output) -> None:
        """Report that a recipe has started."""

    def lines(self, output: Output, lines: Sequence[str]) -> None:
        """Report lines that a recipe has printed."""

    def waiting(self, output: Output, by: str) -> None:
        """Report that another run is making the output."""

    def up_to_date(self, output: Output) -> None:
        """Report that the output is good already."""
        self.counts["up_to_date"] += 1

    def unconfirmed(self, output: Output, why: str) -> None:
        """Report that the output is good by its record, of inputs that are not here."""
        self.counts["unconfirmed"] += 1

    def made(self, output: Output, seconds: float) -> None:
        """Report that the output was made."""
        self.counts["made"] += 1

    def undeclared(self, output: Output, results: Sequence[str], data: Sequence[str]) -> None:
        """Report what the recipe was seen to read though the output does not declare it.

        ``results`` are other outputs, or their files; ``data`` are files of the project.
        """

    def failed(self, output: Output, failure: Mapping[str, Any]) -> None:
        """Report that the output failed; ``failure["reason"]`` is the reason."""
        self.counts["failed"] += 1

    def blocked(self, output: Output, by: Output) -> None:
        """Report that the output needs one that failed."""
        self.counts["blocked"] += 1

    def left(self, output: Output, why: str) -> None:
        """Report that the output was left, as the allocation's time is short."""
        self.counts["left"] += 1

    def interrupting(self, running: int, repeated: bool) -> None:
        """Report that the run is interrupted, with ``running`` recipes still running."""

    def interrupted(self, output: Output, end: Mapping[str, Any]) -> None:
        """Report that a recipe was interrupted.

        ``end["kept"]`` describes its partial work, and ``end["resume"]`` how to run again to go on
        from it; each is missing where there is none.
        """
        self.counts["interrupted"] += 1
        if "resume" in end:
            self.resume.add(end["resume"])

    def finish(self) -> None:
        """Report that the run is over."""

    def summary(self) -> dict[str, Any]:
        """The counts, the elapsed seconds, and the origin of the session."""
        seconds = round(time.monotonic() - self.start_time, 3)
        return {**self.counts, "seconds": seconds, "session": self.session}


class Verbosity(IntEnum):
    """How much to print: failures and summary; also events; also up-to-date outputs."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


class PlainReporter(Reporter):
    """Prints one line for each event, labelled with the output."""

    def __init__(
        self, verbosity: Verbosity = Verbosity.NORMAL, stream: TextIO | None = None
    ) -> None:
        super().__init__()
        self.verbosity = verbosity
        self.stream = stream or sys.stdout

    def print_unless_quiet(self, text: str) -> None:
        """Print a line, unless the verbosity is quiet."""
        if self.verbosity > Verbosity.QUIET:
            self.print_line(text)

    def print_line(self, text: str) -> None:
        """Print a line."""
        print(text, file=self.stream, flush=True)

    def note(self, text: str) -> None:
        self.print_unless_quiet(f"lc: {text}")

    def planned(self, output: Output, why: str) -> None:
        if self.verbosity >= Verbosity.VERBOSE:
            self.print_line(f"{output.name}: to be made: {why}")

    def up_to_date(self, output: Output) -> None:
        super().up_to_date(output)
        if self.verbosity >= Verbosity.VERBOSE:
            self.print_line(f"{output.name}: up to date")

    def unconfirmed(self, output: Output, why: str) -> None:
        super().unconfirmed(output, why)
        if self.verbosity >= Verbosity.VERBOSE:
            self.print_line(f"{output.name}: unconfirmed: {why}")

    def would_make(self, output: Output, why: str) -> None:
        super().would_make(output, why)
        self.print_line(f"{output.name}: would be made: {why}")

    def started(self, output: Output) -> None:
        self.print_unless_quiet(f"{output.name}: started")

    def lines(self, output: Output, lines: Sequence[str]) -> None:
        self.print_unless_quiet("\n".join(f"{output.name} | {line}" for line in lines))

    def waiting(self, output: Output, by: str) -> None:
        self.print_unless_quiet(f"{output.name}: waiting for {by}")

    def made(self, output: Output, seconds: float) -> None:
        super().made(output, seconds)
        self.print_unless_quiet(f"{output.name}: made in {format_seconds(seconds)}")

    def undeclared(self, output: Output, results: Sequence[str], data: Sequence[str]) -> None:
        for names, what in (
            (results, "which it does not declare"),
            (data, "which is no declared input"),
        ):
            for name in names[:_MAX_NAMED]:
                self.print_unless_quiet(f"{output.name}: reads {name}, {what}")
            if len(names) > _MAX_NAMED:
                rest = f"{len(names) - _MAX_NAMED} more such files, which its log lists"
                self.print_unless_quiet(f"{output.name}: reads {rest}")

    def failed(self, output: Output, failure: Mapping[str, Any]) -> None:
        super().failed(output, failure)
        self.print_line(f"{output.name}: FAILED, {failure['reason']}")
        if failure.get("tail"):
            self.print_line(
                "\n".join(["  its last lines:", *(f"    {line}" for line in failure["tail"])])
            )
        if failure.get("log"):
            self.print_line(f"  its whole log: {os.path.relpath(failure['log'])}")
        if failure.get("kept"):
            self.print_line(f"  kept: {failure['kept']}")

    def blocked(self, output: Output, by: Output) -> None:
        super().blocked(output, by)
        self.print_line(f"{output.name}: blocked by {by.name}")

    def left(self, output: Output, why: str) -> None:
        super().left(output, why)
        self.print_line(f"{output.name}: left: {why}")

    def interrupting(self, running: int, repeated: bool) -> None:
        recipes = "1 recipe" if running == 1 else f"{running} recipes"
        if repeated:
            self.print_line(f"lc: ending {recipes} at once")
        elif running:
            self.print_line(f"lc: asked {recipes} to end; interrupt again to end at once")

    def interrupted(self, output: Output, end: Mapping[str, Any]) -> None:
        super().interrupted(output, end)
        self.print_line(f"{output.name}: interrupted")
        if end.get("kept"):
            self.print_line(f"  kept: {end['kept']}")

    def finish(self) -> None:
        self.print_line(f"lc: {self.describe_summary()}")

    def describe_summary(self) -> str:
        """The summary as a sentence, with the next step where something is left."""
        names = {"up_to_date": "up to date", "would_make": "to be made"}
        parts = [f"{count} {names.get(name, name)}" for name, count in self.counts.items() if count]
        text = f"{', '.join(parts) or 'nothing done'} in {format_seconds(self._seconds())}"
        if self.counts["failed"]:
            text += "; mend what failed, and run again"
        elif self.counts["left"] or self.out_of_time:
            option = "" if self.resume == {""} else " with --resume"
            text += f"; run again{option} in another allocation"
        elif self.counts["interrupted"]:
            from_work = " from the partial work" if self.resume else ""
            text += f"; run again{max(self.resume, default='')} to go on{from_work}"
        return text

    def _seconds(self) -> float:
        return time.monotonic() - self.start_time


class JsonReporter(Reporter):
    """Prints one JSON object a line for each event, and the summary last."""

    def _print_event(self, event: str, output: Output | None = None, **more: Any) -> None:
        where = {} if output is None else {"id": output.id, "universe": output.universe}
        print(json.dumps({"event": event, **where, **more}), flush=True)

    def begin(self, total: int, session: str) -> None:
        super().begin(total, session)
        self._print_event("session", session=session)

    def note(self, text: str) -> None:
        self._print_event("note", text=text)

    def warning(self, text: str) -> None:
        self._print_event("warning", text=text)

    def would_make(self, output: Output, why: str) -> None:
        super().would_make(output, why)
        self._print_event("would_make", output, why=why)

    def started(self, output: Output) -> None:
        self._print_event("started", output)

    def lines(self, output: Output, lines: Sequence[str]) -> None:
        self._print_event("lines", output, lines=list(lines))

    def waiting(self, output: Output, by: str) -> None:
        self._print_event("waiting", output, by=by)

    def up_to_date(self, output: Output) -> None:
        super().up_to_date(output)
        self._print_event("up_to_date", output)

    def unconfirmed(self, output: Output, why: str) -> None:
        super().unconfirmed(output, why)
        self._print_event("unconfirmed", output, why=why)

    def made(self, output: Output, seconds: float) -> None:
        super().made(output, seconds)
        self._print_event("made", output, seconds=round(seconds, 3))

    def undeclared(self, output: Output, results: Sequence[str], data: Sequence[str]) -> None:
        self._print_event("undeclared", output, results=list(results), data=list(data))

    def failed(self, output: Output, failure: Mapping[str, Any]) -> None:
        super().failed(output, failure)
        keys = ("reason", "exit_code", "tail", "log", "kept")
        self._print_event("failed", output, **{key: failure[key] for key in keys if key in failure})

    def blocked(self, output: Output, by: Output) -> None:
        super().blocked(output, by)
        self._print_event("blocked", output, by=by.id)

    def left(self, output: Output, why: str) -> None:
        super().left(output, why)
        self._print_event("left", output, why=why)

    def interrupted(self, output: Output, end: Mapping[str, Any]) -> None:
        super().interrupted(output, end)
        self._print_event("interrupted", output, **({"kept": end["kept"]} if "kept" in end else {}))

    def finish(self) -> None:
        self._print_event("summary", **self.summary())
