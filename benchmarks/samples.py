"""What was measured: samples of contenders, their ratios, and the aims they are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Aim", "Contender", "Failed", "Row", "Spread", "interleave"]


_SHOWN = 200


class Failed(Exception):
    """A program that was measured did not do its work."""


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the least and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Contender:
    """One way to do what a row measures.

    Attributes:
        name: as the table shows it.
        call: does it once, whatever preparation it needs included, and returns what was measured.
        rounds: in how many of the rounds it takes part at most, for those that take minutes.
        ours: whether there is no row without it; an alternative that fails is absent instead.
    """

    name: str
    call: Callable[[], float]
    rounds: int | None = None
    ours: bool = False


@dataclass(frozen=True)
class Aim:
    """One figure and the limit it is held against.

    Attributes:
        text: what the figure is.
        value: the figure, or None where it could not be measured.
        limit: what it is to be at most, or at least.
        at_least: which of the two.
        unit: of both; empty for a ratio.
    """

    text: str
    value: Spread | None
    limit: float
    at_least: bool = False
    unit: str = "×"

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the limit; None where nothing was measured."""
        if self.value is None:
            return None
        median = self.value.median
        return median >= self.limit if self.at_least else median <= self.limit


@dataclass
class Row:
    """One row of the comparison.

    Attributes:
        name: by which it is chosen on the command line.
        title: what is measured, for people.
        unit: of the samples: ``"s"``, ``"1/s"``, ``"MB"`` or ``"%"``.
        samples: what was measured, by contender, in the order of the rounds.
        absent: contenders that could not be installed or did not do their work, and why.
        aims: the figures that have a limit.
        notes: what a reader has to know to judge the figures.
    """

    name: str
    title: str
    unit: str = "s"
    samples: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    aims: list[Aim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def drop(self, name: str, why: object) -> None:
        """Take a contender out: one that fails is absent, and not beaten."""
        self.samples.pop(name, None)
        self.absent[name] = " ".join(str(why).split())[:_SHOWN].replace("|", "/")

    def ratio(self, one: str, other: str) -> Spread | None:
        """``one`` ÷ ``other``, round by round: both met the same load in the same round."""
        pairs = zip(self.samples.get(one, ()), self.samples.get(other, ()), strict=False)
        ratios = [first / second for first, second in pairs if second]
        return Spread.of(ratios) if ratios else None

    def aim(self, one: str, other: str, limit: float, *, at_least: bool = False) -> None:
        """Hold ``one`` ÷ ``other`` against a limit."""
        value = self.ratio(one, other)
        self.aims.append(Aim(f"{one} ÷ {other}", value, limit, at_least))


def interleave(row: Row, contenders: Sequence[Contender], rounds: int) -> None:
    """Let every contender do its turn once a round, each round beginning with another one.

    So a load that changes meanwhile falls on all alike. An alternative that fails is dropped.

    Raises:
        Failed: where a contender that is ours does.
    """
    for number in range(rounds):
        turn = number % len(contenders)
        for contender in (*contenders[turn:], *contenders[:turn]):
            if number >= (contender.rounds or rounds) or contender.name in row.absent:
                continue
            try:
                value = contender.call()
            except Failed as error:
                if contender.ours:
                    raise
                row.drop(contender.name, error)
            else:
                row.samples.setdefault(contender.name, []).append(value)
