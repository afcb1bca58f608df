"""What a run tells while it goes: lines, a live display, or JSON."""

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


_COUNTED = ("made", "up_to_date", "failed", "blocked", "interrupted", "left")


class Reporter:
    """Counts what happens; its children show it. Methods are called from one thread."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.counts = Counter(dict.fromkeys(_COUNTED, 0))
        self.session = "none"
        self.out_of_time = False  # whether the allocation that the run is in is over

    def begin(self, total: int, session: str) -> None:
        """A cluster is there, and ``total`` outputs are to be looked at."""
        self.session = session

    def note(self, text: str) -> None:
        """Something worth a line."""

    def planned(self, output: Output, why: str) -> None:
        """The output is to be made, for a reason."""

    def would_make(self, output: Output, why: str) -> None:
        """The output would be made, for a reason."""
        self.counts["would_make"] += 1

    def started(self, output: Output) -> None:
        """A recipe began."""

    def lines(self, output: Output, lines: Sequence[str]) -> None:
        """A recipe printed something."""

    def waiting(self, output: Output, by: str) -> None:
        """Somebody else is making the output."""

    def up_to_date(self, output: Output) -> None:
        """The output is good already."""
        self.counts["up_to_date"] += 1

    def made(self, output: Output, seconds: float) -> None:
        """The output was made."""
        self.counts["made"] += 1

    def failed(self, output: Output, told: Mapping[str, Any]) -> None:
        """The output could not be made; ``told["reason"]`` says why."""
        self.counts["failed"] += 1

    def blocked(self, output: Output, by: Output) -> None:
        """The output needs one that could not be made."""
        self.counts["blocked"] += 1

    def left(self, output: Output, why: str) -> None:
        """The allocation has not enough time left for the output."""
        self.counts["left"] += 1

    def interrupting(self, running: int, again: bool) -> None:
        """The user asked the run to end; ``running`` recipes are going."""

    def interrupted(self, output: Output) -> None:
        """A recipe was ended because the user asked."""
        self.counts["interrupted"] += 1

    def finish(self) -> None:
        """The run is over."""

    def summary(self) -> dict[str, Any]:
        """The counts, the seconds since the beginning, and the session's part."""
        seconds = round(time.monotonic() - self.begun, 3)
        return {**self.counts, "seconds": seconds, "session": self.session}


class Verbosity(IntEnum):
    """How much is told: failures and the summary, what happens, or also what does not, and why."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


class PlainReporter(Reporter):
    """One line for each thing that happens, labelled with the output."""

    def __init__(
        self, verbosity: Verbosity = Verbosity.NORMAL, stream: TextIO | None = None
    ) -> None:
        super().__init__()
        self.verbosity = verbosity
        self.stream = stream or sys.stdout

    def tell(self, text: str) -> None:
        """Show a line that nobody misses who asked for few."""
        if self.verbosity > Verbosity.QUIET:
            self.say(text)

    def say(self, text: str) -> None:
        """Show a line."""
        print(text, file=self.stream, flush=True)

    def note(self, text: str) -> None:
        self.tell(f"lc: {text}")

    def planned(self, output: Output, why: str) -> None:
        if self.verbosity >= Verbosity.VERBOSE:
            self.say(f"{output.name}: to be made: {why}")

    def up_to_date(self, output: Output) -> None:
        super().up_to_date(output)
        if self.verbosity >= Verbosity.VERBOSE:
            self.say(f"{output.name}: up to date")

    def would_make(self, output: Output, why: str) -> None:
        super().would_make(output, why)
        self.say(f"{output.name}: would be made: {why}")

    def started(self, output: Output) -> None:
        self.tell(f"{output.name}: started")

    def lines(self, output: Output, lines: Sequence[str]) -> None:
        self.tell("\n".join(f"{output.name} | {line}" for line in lines))

    def waiting(self, output: Output, by: str) -> None:
        self.tell(f"{output.name}: waiting for {by}")

    def made(self, output: Output, seconds: float) -> None:
        super().made(output, seconds)
        self.tell(f"{output.name}: made in {format_seconds(seconds)}")

    def failed(self, output: Output, told: Mapping[str, Any]) -> None:
        super().failed(output, told)
        self.say(f"{output.name}: FAILED, {told['reason']}")
        if told.get("tail"):
            self.say("\n".join(["  its last lines:", *(f"    {line}" for line in told["tail"])]))
        if told.get("log"):
            self.say(f"  its whole log: {os.path.relpath(told['log'])}")

    def blocked(self, output: Output, by: Output) -> None:
        super().blocked(output, by)
        self.say(f"{output.name}: blocked by {by.name}")

    def left(self, output: Output, why: str) -> None:
        super().left(output, why)
        self.say(f"{output.name}: left: {why}")

    def interrupting(self, running: int, again: bool) -> None:
        recipes = "1 recipe" if running == 1 else f"{running} recipes"
        if again:
            self.say(f"lc: ending {recipes} at once")
        elif running:
            self.say(f"lc: asked {recipes} to end; interrupt again to end at once")

    def interrupted(self, output: Output) -> None:
        super().interrupted(output)
        self.say(f"{output.name}: interrupted")

    def finish(self) -> None:
        self.say(f"lc: {self.words()}")

    def words(self) -> str:
        """The summary for people, ending with what to do next where something is left."""
        names = {"up_to_date": "up to date", "would_make": "to be made"}
        parts = [f"{count} {names.get(name, name)}" for name, count in self.counts.items() if count]
        text = f"{', '.join(parts) or 'nothing done'} in {format_seconds(self._seconds())}"
        if self.counts["failed"]:
            text += "; mend what failed, and run again"
        elif self.counts["left"] or self.out_of_time:
            text += "; run again with --resume in another allocation"
        elif self.counts["interrupted"]:
            text += "; run again to go on"
        return text

    def _seconds(self) -> float:
        return time.monotonic() - self.begun


class JsonReporter(Reporter):
    """One JSON object a line for each thing that happens; the last is the summary."""

    def _put(self, event: str, output: Output | None = None, **more: Any) -> None:
        where = {} if output is None else {"id": output.id, "universe": output.universe}
        print(json.dumps({"event": event, **where, **more}), flush=True)

    def begin(self, total: int, session: str) -> None:
        super().begin(total, session)
        self._put("session", session=session)

    def note(self, text: str) -> None:
        self._put("note", text=text)

    def would_make(self, output: Output, why: str) -> None:
        super().would_make(output, why)
        self._put("would_make", output, why=why)

    def started(self, output: Output) -> None:
        self._put("started", output)

    def lines(self, output: Output, lines: Sequence[str]) -> None:
        self._put("lines", output, lines=list(lines))

    def waiting(self, output: Output, by: str) -> None:
        self._put("waiting", output, by=by)

    def up_to_date(self, output: Output) -> None:
        super().up_to_date(output)
        self._put("up_to_date", output)

    def made(self, output: Output, seconds: float) -> None:
        super().made(output, seconds)
        self._put("made", output, seconds=round(seconds, 3))

    def failed(self, output: Output, told: Mapping[str, Any]) -> None:
        super().failed(output, told)
        keys = ("reason", "exit_code", "tail", "log")
        self._put("failed", output, **{key: told[key] for key in keys if key in told})

    def blocked(self, output: Output, by: Output) -> None:
        super().blocked(output, by)
        self._put("blocked", output, by=by.id)

    def left(self, output: Output, why: str) -> None:
        super().left(output, why)
        self._put("left", output, why=why)

    def interrupted(self, output: Output) -> None:
        super().interrupted(output)
        self._put("interrupted", output)

    def finish(self) -> None:
        self._put("summary", **self.summary())
