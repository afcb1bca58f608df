"""What somebody who looks at a session has chosen to see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any

__all__ = ["Action", "Choice", "Mode", "Rows", "press", "rows"]

_PAGE = 10


class Sort(StrEnum):
    """What the recipes that run are sorted by."""

    BEGUN = "begun"
    NAME = "name"
    CPU = "cpu"
    MEMORY = "memory"


class Mode(Enum):
    """What keys mean: choosing, typing a filter, answering a question, reading a log."""

    CHOOSE = "choose"
    FILTER = "filter"
    CANCEL = "cancel"
    LOG = "log"


class Action(Enum):
    """What a key asks for beyond the screen."""

    LEAVE = "leave"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Choice:
    """The state of the screen.

    Attributes:
        selected: the ``id`` of the entry chosen, "" for the first.
        sort: the order of what runs.
        filter: what names have to contain.
        mode: what keys mean now.
        entry: the entry whose log is read or whose run may be cancelled.
        back: how many lines above the log's end one reads.
        note: something to say until the next key.
    """

    selected: str = ""
    sort: Sort = Sort.BEGUN
    filter: str = ""
    mode: Mode = Mode.CHOOSE
    entry: dict[str, Any] | None = None
    back: int = 0
    note: str = ""


@dataclass(frozen=True)
class Rows:
    """The entries shown, in order, and which of them is chosen."""

    running: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    selected: str

    @property
    def all(self) -> list[dict[str, Any]]:
        """Those that can be chosen, as they stand below each other."""
        return [*self.running, *self.waiting, *self.failures]

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The entry chosen, or None where there is none."""
        return next((row for row in self.all if row["id"] == self.selected), None)


def rows(snapshot: dict[str, Any], choice: Choice) -> Rows:
    """What of a look at the session is shown."""

    def wanted(name: str) -> list[dict[str, Any]]:
        text = choice.filter.lower()
        return [row for row in snapshot[name] if text in f"{row['name']} {row['run']}".lower()]

    orders: dict[Sort, Any] = {
        Sort.BEGUN: lambda row: -row["seconds"],
        Sort.NAME: lambda row: row["name"],
        Sort.CPU: lambda row: -(row["cpus_used"] or 0.0),
        Sort.MEMORY: lambda row: -(row["memory_used"] or 0),
    }
    running = sorted(wanted("running"), key=orders[choice.sort])
    shown = Rows(running, wanted("waiting"), wanted("failures"), choice.selected)
    if shown.chosen is None and shown.all:
        return replace(shown, selected=shown.all[0]["id"])
    return shown


def press(choice: Choice, key: str, shown: Rows) -> tuple[Choice, Action | None]:
    """The state after a key, and what else it asks for."""
    if key == "ctrl-c":
        return choice, Action.LEAVE
    choice = replace(choice, note="")
    if choice.mode is Mode.FILTER:
        return _typed(choice, key), None
    if choice.mode is Mode.CANCEL:
        chosen = replace(choice, mode=Mode.CHOOSE)
        return (chosen, Action.CANCEL) if key in ("y", "Y") else (chosen, None)
    if choice.mode is Mode.LOG:
        return _read(choice, key), None
    if key == "q":
        return choice, Action.LEAVE
    return _chosen(choice, key, shown), None


def _typed(choice: Choice, key: str) -> Choice:
    if key == "enter":
        return replace(choice, mode=Mode.CHOOSE)
    if key == "escape":
        return replace(choice, mode=Mode.CHOOSE, filter="")
    if key == "backspace":
        return replace(choice, filter=choice.filter[:-1])
    return replace(choice, filter=choice.filter + key) if len(key) == 1 else choice


def _read(choice: Choice, key: str) -> Choice:
    steps = {"up": 1, "k": 1, "down": -1, "j": -1, "page up": _PAGE, "page down": -_PAGE}
    if key in ("q", "escape", "enter"):
        return replace(choice, mode=Mode.CHOOSE, entry=None, back=0)
    if key in ("end", "G"):
        return replace(choice, back=0)
    return replace(choice, back=max(choice.back + steps.get(key, 0), 0))


def _chosen(choice: Choice, key: str, shown: Rows) -> Choice:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -_PAGE, "page down": _PAGE}
    steps |= {"home": -len(shown.all), "g": -len(shown.all)}
    steps |= {"end": len(shown.all), "G": len(shown.all)}
    if key in steps and shown.all:
        ids = [row["id"] for row in shown.all]
        place = ids.index(shown.selected) + steps[key]
        return replace(choice, selected=ids[min(max(place, 0), len(ids) - 1)])
    if key == "/":
        return replace(choice, mode=Mode.FILTER)
    if key == "escape":
        return replace(choice, filter="")
    if key == "s":
        sorts = list(Sort)
        return replace(choice, sort=sorts[(sorts.index(choice.sort) + 1) % len(sorts)])
    entry = shown.chosen
    if key == "enter" and entry is not None:
        if not entry.get("log"):
            why = "it has not begun"
            if "seconds" in entry:
                why = "what it prints goes to the terminal it was begun in"
            return replace(choice, note=f"{entry['name']} has no log: {why}")
        return replace(choice, mode=Mode.LOG, entry=entry, selected=entry["id"])
    if key == "c" and entry is not None:
        if not entry.get("run_id"):
            return replace(choice, note=f"{entry['name']} is over")
        return replace(choice, mode=Mode.CANCEL, entry=entry, selected=entry["id"])
    return choice
