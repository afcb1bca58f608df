"""Resolution of a universe: its outputs, their order and their producers.

``astra`` resolves a universe. Universes differ in it only by the outputs whose conditions hold, so
the result is cached for each set of these: a project may have tens of universes with thousands of
outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightcone.errors import SpecError
from lightcone.spec.schema import Node
from lightcone.spec.tree import Scope, Tree
from lightcone.spec.universes import Universe

if TYPE_CHECKING:
    from astra.resolve import ResolvedInput

__all__ = ["Resolution", "Resolved", "Resolver", "has_recipe", "topological_order"]


def topological_order(made: Mapping[str, Resolved]) -> list[str]:
    """Sort the outputs topologically, otherwise as declared.

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
                cycle = [*names[names.index(following) :], following]
                if len(cycle) == 2:
                    raise SpecError(
                        f"Output {following} in astra.yaml needs itself: remove it from its own "
                        "'inputs', or give the output or the input that is meant another id."
                    )
                raise SpecError(
                    f"Outputs need each other in a circle, {' → '.join(reversed(cycle))}: remove "
                    "one of these from the 'inputs' of another in astra.yaml."
                )
    return order


def _needs(made: Mapping[str, Resolved], name: str) -> Iterator[str]:
    for given in made[name].inputs:
        if given.produced_by is not None and given.produced_by in made:
            yield given.produced_by


@dataclass(frozen=True, slots=True)
class Resolved:
    """An output with a recipe: its declaration and the suppliers of its inputs."""

    id: str
    scope: Scope
    definition: Node
    inputs: tuple[ResolvedInput, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The outputs with a recipe in one universe.

    Attributes:
        made: by their qualified ids, each after those it needs.
        aliases: the qualified ids of the re-exports of each.
    """

    made: dict[str, Resolved]
    aliases: dict[str, tuple[str, ...]]


class Resolver:
    """Cached resolver of the universes of one analysis."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._conditions = [
            (".".join(scope), output["when"])
            for scope, node in tree.nodes.items()
            for output in node["outputs"]
            if output.get("when")
        ]
        self._cache: dict[tuple[bool, ...], Resolution] = {}

    def settle(self, universe: Universe) -> dict[str, str]:
        """Return the option of every active decision, by its qualified id."""
        from astra.resolve import resolve_universe

        settled: dict[str, str] = resolve_universe(self._tree.data, universe.data)
        return settled

    def outputs(self, universe: Universe, settled: Mapping[str, str]) -> Resolution:
        """Return the outputs of a universe, given its ``settled`` decisions.

        Raises:
            SpecError: where some need each other.
        """
        from astra.helpers import is_condition_met

        chosen: dict[str, dict[str, str]] = {}
        for key, option in settled.items():
            scope, _, name = key.rpartition(".")
            chosen.setdefault(scope, {})[name] = option
        conditions_met = tuple(
            is_condition_met(when, chosen.get(scope, {})) for scope, when in self._conditions
        )
        if conditions_met not in self._cache:
            self._cache[conditions_met] = self._resolve(universe)
        return self._cache[conditions_met]

    def _resolve(self, universe: Universe) -> Resolution:
        from astra.resolve import resolve_outputs

        resolved = resolve_outputs(self._tree.data, universe.data)
        made = {
            each.id: Resolved(each.id, each.scope, each.definition, each.inputs)
            for each in resolved
            if not each.reexports and has_recipe(each.definition)
        }
        aliases: dict[str, tuple[str, ...]] = {}
        for each in resolved:
            if each.reexports:
                aliases[each.reexports] = (*aliases.get(each.reexports, ()), each.id)
        return Resolution({name: made[name] for name in topological_order(made)}, aliases)


def has_recipe(definition: Node) -> bool:
    """Return whether an output has a recipe.

    A user puts an output without one in place by hand.
    """
    command: str = (definition.get("recipe") or {}).get("command") or ""
    return bool(command.strip())
