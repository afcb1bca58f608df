"""An ASTRA project as outputs to make: ``astra.yaml`` and its universes, read and resolved.

What the spec means is asked of ``astra``. Added here is where things lie, what a command looks
like with its placeholders filled in, and which mistakes stop the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lightcone.errors import SpecError
from lightcone.project.context import find_root
from lightcone.project.settings import Settings
from lightcone.spec.check import check_choices, check_conditions, explain, suggest
from lightcone.spec.inputs import InputSources
from lightcone.spec.layout import Layout, Locations, find_layout
from lightcone.spec.output import Input, Output, Resources, read_resources
from lightcone.spec.resolve import Resolved, Resolver, is_made
from lightcone.spec.schema import Node
from lightcone.spec.selection import named, select
from lightcone.spec.template import Template, Value, compile_template
from lightcone.spec.tree import Scope, Tree, load_tree
from lightcone.spec.universes import Universe, list_universes, load_universes
from lightcone.system.interpreter import gc_paused

if TYPE_CHECKING:
    from astra.resolve import ResolvedInput

__all__ = ["Builder", "find_root", "list_universes", "load_outputs", "named", "select"]

_FROM_CODES = frozenset({"INVALID_FROM", "INVALID_DECISION_FROM", "INVALID_OUTPUT_FROM"})


class _Recipe:
    """What is the same about an output in every universe."""

    def __init__(self, tree: Tree, scope: Scope, definition: Node) -> None:
        recipe: Node = definition["recipe"]
        self.what = f"Output '{definition['id']}' in {tree.file(scope)}"
        self.command: str = recipe["command"]
        self.decisions: list[tuple[str, str]] = [
            (name, self._find(tree, scope, name)) for name in definition["decisions"]
        ]
        self.resources: Resources = read_resources(recipe.get("resources"), self.what)
        self.container: str | None = None
        if "container" in recipe:
            self.container = recipe["container"]
        else:
            for depth in range(len(scope), -1, -1):
                self.container = self.container or tree.nodes[scope[:depth]].get("container")
        self._templates: dict[tuple[str, ...], Template] = {}

    def template(self, inputs: tuple[str, ...]) -> Template:
        """The command, where these are the inputs that the universe has."""
        if inputs not in self._templates:
            decisions = [name for name, _ in self.decisions]
            self._templates[inputs] = compile_template(self.command, inputs, decisions, self.what)
        return self._templates[inputs]

    def mentions(self, placeholder: str) -> bool:
        """Whether the command names that very placeholder."""
        return f"{{{placeholder}}}" in self.command

    def _find(self, tree: Tree, scope: Scope, name: str) -> str:
        """The qualified id of a declared decision.

        Raises:
            SpecError: where there is no such decision.
        """
        # Not declared where the output is: today's projects mean the analysis around it.
        for depth in range(len(scope), -1, -1):
            if name in tree.nodes[scope[:depth]]["decisions"]:
                return ".".join((*scope[:depth], name))
        meant = suggest(
            name, list(tree.nodes[scope]["decisions"]), "correct the name or declare it."
        )
        raise SpecError(f"{self.what} lists a decision '{name}', which is not declared: {meant}")


class Builder:
    """Makes outputs of what ``astra`` resolves, all of which depend on ``depend_on``."""

    def __init__(self, tree: Tree, places: Locations, depend_on: tuple[str, ...] = ()) -> None:
        self.tree = tree
        self.places = places
        self.depend_on = depend_on
        self.inside = f"{tree.root}/"
        self.recipes: dict[str, _Recipe] = {}
        self.outside = InputSources(tree)
        self.given = {scope: _by_id(node["inputs"]) for scope, node in tree.nodes.items()}
        self.declared = {scope: _by_id(node["outputs"]) for scope, node in tree.nodes.items()}
        self.resolver = Resolver(tree)
        self.universe = Universe("", {})
        self.settled: dict[str, str] = {}
        self.made: dict[str | None, tuple[str, str, Value]] = {}

    def outputs(self, universe: Universe) -> Iterator[Output]:
        """The outputs of one universe, in dependency order."""
        check_choices(self.tree, universe)
        self.universe = universe
        self.settled = self.resolver.settle(universe)
        resolution = self.resolver.outputs(universe, self.settled)
        self.made = {name: self._place(each.scope, name) for name, each in resolution.made.items()}
        for name, each in resolution.made.items():
            yield self._output(each, resolution.aliases.get(name, ()))

    def _output(self, resolved: Resolved, aliases: tuple[str, ...]) -> Output:
        name = resolved.id
        recipe = self.recipes.get(name)
        if recipe is None:
            recipe = _Recipe(self.tree, resolved.scope, resolved.definition)
            self.recipes[name] = recipe
        place, state, shown = self.made[name]
        values = {"output": shown}
        inputs = []
        for given in resolved.inputs:
            made = self.made.get(given.produced_by)
            if made is not None:
                found = Input(given.id, made[2].text, made[0], given.produced_by)
                values[f"inputs.{given.id}"] = made[2]
            else:
                other = self._input(resolved.scope, given, recipe)
                if other is None:
                    continue
                found = other
                values[f"inputs.{given.id}"] = Value(found.text, expands=True)
            inputs.append(found)
        decisions = []
        for decision, key in recipe.decisions:
            option = self.settled.get(key)
            if option is not None:
                decisions.append((decision, option))
            elif recipe.mentions(f"decisions.{decision}"):
                option = self._inactive(resolved.scope, decision, recipe)
            values[f"decisions.{decision}"] = Value(option or "")
        command = recipe.template(tuple([each.id for each in inputs])).render(values)
        if "\0" in command:
            raise SpecError(f"{recipe.what}: the command has a NUL character: remove it.")
        return Output(
            universe=self.universe.name,
            id=name,
            root=self.tree.root,
            place=place,
            state=state,
            is_directory=self.places.layout is Layout.DIRECTORY,
            command=command,
            template=recipe.command,
            inputs=tuple(inputs),
            decisions=tuple(decisions),
            container=recipe.container,
            resources=recipe.resources,
            aliases=aliases,
            depend_on=self.depend_on,
        )

    def _input(self, scope: Scope, given: ResolvedInput, recipe: _Recipe) -> Input | None:
        """One input that no recipe makes here, or None where the command can do without.

        Raises:
            SpecError: where the command needs what there is not.
        """
        producer = given.produced_by
        definition = None
        if producer is not None:
            *above, local = producer.split(".")
            definition = self.declared.get(tuple(above), {}).get(local)
            if definition is not None and not is_made(definition):
                place, _, shown = self._place(tuple(above), producer)
                return Input(given.id, shown.text, place, None, True)
        elif given.source:
            found = self.outside.find(scope, given.source)
            return Input(given.id, found.text, found.path, None, found.certain)
        inputs, outputs = self.given[scope], self.declared[scope]
        is_known = given.id in inputs or given.id in outputs
        if definition is None and (producer is not None or not is_known):
            problem = "is neither an input nor an output"
            remedy = suggest(given.id, [*inputs, *outputs], "correct the name or declare it.")
            if producer is not None:
                problem = f"is to be made by '{producer}', which is not declared"
                remedy = "correct the name or declare it."
        elif not recipe.mentions(f"inputs.{given.id}"):
            return None
        elif definition is not None:
            problem = f"is not made in universe '{self.universe.name}'"
            remedy = "give both the same 'when'."
        else:
            problem, remedy = "has no 'source'", "give it one."
        reason = explain(self.tree, scope, _FROM_CODES)
        raise SpecError(f"{recipe.what}: its input '{given.id}' {problem}{reason}: {remedy}")

    def _inactive(self, scope: Scope, name: str, recipe: _Recipe) -> str:
        """What a command gets for a decision that is not up for decision in this universe.

        Raises:
            SpecError: where nothing says what.
        """
        node = self.universe.data
        for sub in scope:
            node = (node.get("analyses") or {}).get(sub) or {}
        decision: Node = self.tree.nodes[scope]["decisions"].get(name, {})
        option: str | None = (node.get("decisions") or {}).get(name) or decision.get("default")
        if option is None:
            reason = explain(self.tree, scope, _FROM_CODES)
            raise SpecError(
                f"{recipe.what}: the command has {{decisions.{name}}}, but universe "
                f"'{self.universe.name}' has no option for it{reason}: give the decision a "
                "'default', or the output the same 'when'."
            )
        return option

    def _place(self, scope: Scope, name: str) -> tuple[str, str, Value]:
        """Where an output lies, where its state does, and what commands call it."""
        local = name.rpartition(".")[2]
        place, state = self.places.find(self.universe.name, scope, local)
        return place, state, Value(self._shown(place))

    def _shown(self, place: str) -> str:
        """A path as one would type it in the project's directory."""
        return place.removeprefix(self.inside)


def _by_id(entries: list[Node]) -> dict[str, Node]:
    return {entry["id"]: entry for entry in entries}


def load_outputs(root: Path, settings: Settings, universe: str | None = None) -> list[Output]:
    """Every output with a recipe, in every universe or in the one named, in dependency order.

    Raises:
        SpecError: where the spec or a universe cannot be used.
        UsageError: where there is no such universe.
    """
    with gc_paused(), _quiet():
        tree = load_tree(root)
        check_conditions(tree)
        universes = load_universes(tree, universe)
        layout = find_layout(tree, settings.layout, list_universes(root))
        builder = Builder(tree, Locations.of(tree, layout), settings.depend_on)
        return [output for each in universes for output in builder.outputs(each)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what ``astra`` logs off the terminal: what matters of it is said in our own words."""
    import logging

    logger = logging.getLogger("astra")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
