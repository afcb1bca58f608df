"""The state of the screen: what the keys have chosen to show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any

__all__ = ["Action", "Choice", "Mode", "Rows", "press", "rows"]

_PAGE = 10


class Sort(StrEnum):
    """The sort order of running recipes."""

    STARTED = "started"
    NAME = "name"
    CPU = "cpu"
    MEMORY = "memory"


class Mode(Enum):
    """The mode of the keyboard: choosing, filtering, confirming a cancel, reading a log."""

    CHOOSE = "choose"
    FILTER = "filter"
    CANCEL = "cancel"
    LOG = "log"


class Action(Enum):
    """An action that a key requests beyond the screen."""

    LEAVE = "leave"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Choice:
    """The state of the screen.

    Attributes:
        selected: the ``id`` of the selected entry, "" for the first.
        sort: the order of running recipes.
        filter: the text that names have to contain.
        mode: that of the keyboard.
        entry: the entry whose log is shown or whose run may be cancelled.
        scroll: how many lines above the end of the log the screen shows.
        note: a message shown until the next key.
    """

    selected: str = ""
    sort: Sort = Sort.STARTED
    filter: str = ""
    mode: Mode = Mode.CHOOSE
    entry: dict[str, Any] | None = None
    scroll: int = 0
    note: str = ""


@dataclass(frozen=True)
class Rows:
    """The entries shown, in order, and the selected one."""

    running: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    selected: str

    @property
    def all(self) -> list[dict[str, Any]]:
        """All entries, in the order shown."""
        return [*self.running, *self.waiting, *self.failures]

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The selected entry, or None where there is none."""
        return next((row for row in self.all if row["id"] == self.selected), None)


def rows(snapshot: dict[str, Any], choice: Choice) -> Rows:
    """Select the entries of a snapshot that are shown."""

    def matching(name: str) -> list[dict[str, Any]]:
        text = choice.filter.lower()
        return [row for row in snapshot[name] if text in f"{row['name']} {row['run']}".lower()]

    sort_keys: dict[Sort, Any] = {
        Sort.STARTED: lambda row: -row["seconds"],
        Sort.NAME: lambda row: row["name"],
        Sort.CPU: lambda row: -(row["cpus_used"] or 0.0),
        Sort.MEMORY: lambda row: -(row["memory_used"] or 0),
    }
    running = sorted(matching("running"), key=sort_keys[choice.sort])
    shown = Rows(running, matching("waiting"), matching("failures"), choice.selected)
    if shown.chosen is None and shown.all:
        return replace(shown, selected=shown.all[0]["id"])
    return shown


def press(choice: Choice, key: str, shown: Rows) -> tuple[Choice, Action | None]:
    """Handle a key; the new state, and the action requested."""
    if key == "ctrl-c":
        return choice, Action.LEAVE
    choice = replace(choice, note="")
    if choice.mode is Mode.FILTER:
        return _edit_filter(choice, key), None
    if choice.mode is Mode.CANCEL:
        closed = replace(choice, mode=Mode.CHOOSE)
        return (closed, Action.CANCEL) if key in ("y", "Y") else (closed, None)
    if choice.mode is Mode.LOG:
        return _scroll_log(choice, key), None
    if key == "q":
        return choice, Action.LEAVE
    return _handle_selection(choice, key, shown), None


def _edit_filter(choice: Choice, key: str) -> Choice:
    if key == "enter":
        return replace(choice, mode=Mode.CHOOSE)
    if key == "escape":
        return replace(choice, mode=Mode.CHOOSE, filter="")
    if key == "backspace":
        return replace(choice, filter=choice.filter[:-1])
    return replace(choice, filter=choice.filter + key) if len(key) == 1 else choice


def _scroll_log(choice: Choice, key: str) -> Choice:
    steps = {"up": 1, "k": 1, "down": -1, "j": -1, "page up": _PAGE, "page down": -_PAGE}
    if key in ("q", "escape", "enter"):
        return replace(choice, mode=Mode.CHOOSE, entry=None, scroll=0)
    if key in ("end", "G"):
        return replace(choice, scroll=0)
    return replace(choice, scroll=max(choice.scroll + steps.get(key, 0), 0))


def _handle_selection(choice: Choice, key: str, shown: Rows) -> Choice:
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -_PAGE, "page down": _PAGE}
    steps |= {"home": -len(shown.all), "g": -len(shown.all)}
    steps |= {"end": len(shown.all), "G": len(shown.all)}
    if key in steps and shown.all:
        ids = [row["id"] for row in shown.all]
        position = ids.index(shown.selected) + steps[key]
        return replace(choice, selected=ids[min(max(position, 0), len(ids) - 1)])
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
