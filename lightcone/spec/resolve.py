"""Which outputs a universe has, in which order they can be made, and what supplies their inputs.

``astra`` answers that. Universes differ in it only by the outputs whose conditions hold, so it is
asked once for each set of these: a project may have tens of universes with thousands of outputs.
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

__all__ = ["Resolution", "Resolved", "Resolver", "is_made", "topological_order"]


def topological_order(made: Mapping[str, Resolved]) -> list[str]:
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


@dataclass(frozen=True, slots=True)
class Resolved:
    """One output with a recipe: where it is declared, as what, and what supplies its inputs."""

    id: str
    scope: Scope
    definition: Node
    inputs: tuple[ResolvedInput, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The outputs with a recipe that a universe has.

    Attributes:
        made: by their qualified ids, each after those it needs.
        aliases: the qualified ids of the re-exports of each.
    """

    made: dict[str, Resolved]
    aliases: dict[str, tuple[str, ...]]


class Resolver:
    """Resolves the universes of one analysis."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._conditions = [
            (".".join(scope), output["when"])
            for scope, node in tree.nodes.items()
            for output in node["outputs"]
            if output.get("when")
        ]
        self._known: dict[tuple[bool, ...], Resolution] = {}

    def settle(self, universe: Universe) -> dict[str, str]:
        """The option of every decision that is up for decision, by its qualified id."""
        from astra.resolve import resolve_universe

        settled: dict[str, str] = resolve_universe(self._tree.data, universe.data)
        return settled

    def outputs(self, universe: Universe, settled: Mapping[str, str]) -> Resolution:
        """The outputs of a universe in which ``settled`` has been settled.

        Raises:
            SpecError: where some need each other.
        """
        from astra.helpers import is_condition_met

        chosen: dict[str, dict[str, str]] = {}
        for key, option in settled.items():
            scope, _, name = key.rpartition(".")
            chosen.setdefault(scope, {})[name] = option
        held = tuple(
            is_condition_met(when, chosen.get(scope, {})) for scope, when in self._conditions
        )
        if held not in self._known:
            self._known[held] = self._ask(universe)
        return self._known[held]

    def _ask(self, universe: Universe) -> Resolution:
        from astra.resolve import resolve_outputs

        resolved = resolve_outputs(self._tree.data, universe.data)
        made = {
            each.id: Resolved(each.id, each.scope, each.definition, each.inputs)
            for each in resolved
            if not each.reexports and is_made(each.definition)
        }
        aliases: dict[str, tuple[str, ...]] = {}
        for each in resolved:
            if each.reexports:
                aliases[each.reexports] = (*aliases.get(each.reexports, ()), each.id)
        return Resolution({name: made[name] for name in topological_order(made)}, aliases)


def is_made(definition: Node) -> bool:
    """Whether an output has a recipe; one without is put there by hand."""
    command: str = (definition.get("recipe") or {}).get("command") or ""
    return bool(command.strip())
