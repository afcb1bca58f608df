"""Selection of outputs by the names on a command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightcone.errors import UsageError
from lightcone.spec.output import Key, Output

__all__ = ["named", "needed", "select"]


def named(outputs: Sequence[Output], names: Sequence[str]) -> set[Key]:
    """Return the outputs that ``names`` match, as ``id`` or ``universe/id``.

    An id alone matches in every universe.

    A re-export means the output that it stands for.

    Raises:
        UsageError: where a name means nothing.
    """
    matched: set[Key] = set()
    by_id: dict[str, list[Output]] = {}
    for output in outputs:
        for name in (output.id, *output.aliases):
            by_id.setdefault(name, []).append(output)
    for name in names:
        universe, slash, identifier = name.rpartition("/")
        keys = {
            output.key
            for output in by_id.get(identifier, ())
            if not slash or output.universe == universe
        }
        if not keys:
            raise UsageError(_unknown(name, outputs, by_id))
        matched |= keys
    return matched


def select(outputs: Sequence[Output], names: Sequence[str]) -> list[Output]:
    """Select the outputs that ``names`` match and everything they need.

    They keep the order of ``outputs``.

    Raises:
        UsageError: where a name means nothing.
    """
    return needed(outputs, named(outputs, names))


def needed(outputs: Sequence[Output], keys: Iterable[Key]) -> list[Output]:
    """Select the outputs of ``keys`` and everything they need, in the order of ``outputs``."""
    by_key = {output.key: output for output in outputs}
    wanted: set[Key] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in wanted or key not in by_key:
            continue
        wanted.add(key)
        output = by_key[key]
        waiting += [
            (output.universe, given.producer)
            for given in output.inputs
            if given.producer is not None
        ]
    return [output for output in outputs if output.key in wanted]


def _unknown(name: str, outputs: Sequence[Output], by_id: dict[str, list[Output]]) -> str:
    from difflib import get_close_matches

    universe, slash, identifier = name.rpartition("/")
    universes = list(dict.fromkeys(output.universe for output in outputs))
    if slash and universe not in universes:
        others = ", ".join(universes) or "none"
        return f"There is no output '{name}': no universe '{universe}', there are {others}."
    if slash and identifier in by_id:
        others = ", ".join(output.universe for output in by_id[identifier])
        return f"There is no output '{name}': universe '{universe}' has none, but {others} has it."
    known = list(by_id)
    guesses = get_close_matches(identifier, known, 3)
    guesses += [other for other in known if other.endswith(f".{identifier}")]
    if guesses:
        meant = " or ".join(f"'{guess}'" for guess in dict.fromkeys(guesses))
        return f"There is no output '{name}' with a recipe: did you mean {meant}?"
    shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    return f"There is no output '{name}' with a recipe: there are {shown or 'none'}."
