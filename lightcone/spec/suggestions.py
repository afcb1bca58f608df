"""What a misspelt name was probably meant to be, and lists that stay short in messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["capped", "closest", "listed", "suggest"]

_SHOWN_NAMES = 10
_SHOWN_SENTENCES = 20


def suggest(name: str, known: Sequence[str], fallback: str) -> str:
    """Suggest the most similar known name, or else ``fallback``."""
    from difflib import get_close_matches

    matches = get_close_matches(name, known, 1)
    return f"did you mean '{matches[0]}'?" if matches else fallback


def closest(name: str, known: Iterable[str], distance: int) -> str | None:
    """Return the known name with the fewest typos in ``name``, at most ``distance`` of them.

    A name of less than six letters may have one, and one of less than four none.
    """
    best: tuple[int, str] | None = None
    letters = set(name)
    for candidate in known:
        length = min(len(name), len(candidate))
        limit = min(distance, 0 if length < 4 else 1 if length < 6 else 2)
        # Cheap bounds first: a spec may have thousands of unknown keys.
        if abs(len(name) - len(candidate)) > limit or len(letters ^ set(candidate)) > 2 * limit:
            continue
        typos = _edit_distance(name, candidate)
        if typos <= limit and (best is None or (typos, candidate) < best):
            best = typos, candidate
    return best[1] if best else None


def listed(names: Iterable[str]) -> str:
    """Join names for a message, the first ten and the number of the others."""
    names = list(names)
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def capped(sentences: list[str]) -> list[str]:
    """Return the first twenty sentences of one kind, and one with the number of the others."""
    more = len(sentences) - _SHOWN_SENTENCES
    if more <= 0:
        return sentences
    return [*sentences[:_SHOWN_SENTENCES], f"and {more} more like the last one."]


def _edit_distance(one: str, other: str) -> int:
    """Count the letters to insert, delete, replace or swap with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        above, before = before, row
        row = [i]
        for j, target in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != target))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == target:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
