"""The order in which outputs can be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lightcone.errors import SpecError

if TYPE_CHECKING:
    from lightcone.analysis.resolution import Resolved

__all__ = ["in_order"]


def in_order(made: Mapping[str, Resolved]) -> list[str]:
    """The outputs, each after those it needs, otherwise as declared.

    Raises:
        SpecError: where some need each other.
    """
    order: list[str] = []
    state: dict[str, bool] = {}
    for first in made:
        path = [(first, _needs(made, first))] if first not in state else []
        if path:
            state[first] = False
        while path:
            name, needs = path[-1]
            following = next(needs, None)
            if following is None:
                state[name] = True
                order.append(name)
                path.pop()
            elif following not in state:
                state[following] = False
                path.append((following, _needs(made, following)))
            elif not state[following]:
                names = [step for step, _ in path]
                circle = [*names[names.index(following) :], following]
                raise SpecError(
                    f"Outputs need each other in a circle, {' → '.join(reversed(circle))}: remove "
                    "one of these from the 'inputs' of another in astra.yaml."
                )
    return order


def _needs(made: Mapping[str, Resolved], name: str) -> Iterator[str]:
    for given in made[name].inputs:
        if given.produced_by is not None and given.produced_by in made:
            yield given.produced_by
