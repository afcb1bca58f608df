"""The outputs of an ASTRA project, from ``astra.yaml`` and its universes.

``astra`` interprets the spec. This module adds the locations of the outputs, their commands with
the placeholders filled in, and the mistakes that stop the work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lightcone.errors import SettingsError, SpecError
from lightcone.project.context import find_root
from lightcone.project.settings import SETTINGS_FILE, Settings
from lightcone.spec.check import (
    broken_reexports,
    check_choices,
    check_conditions,
    check_constraints,
    explain,
    has_constraints,
)
from lightcone.spec.inputs import InputSources
from lightcone.spec.layout import Layout, Locations, find_layout
from lightcone.spec.output import Input, Output, Resources, read_resources
from lightcone.spec.resolve import Resolved, Resolver, has_recipe
from lightcone.spec.schema import Node
from lightcone.spec.selection import named, select
from lightcone.spec.suggestions import listed, suggest
from lightcone.spec.template import Template, Value, compile_template
from lightcone.spec.tree import Scope, Tree, load_tree
from lightcone.spec.universes import (
    Universe,
    list_universes,
    load_universes,
    unread_universes,
)
from lightcone.system.interpreter import gc_paused
from lightcone.system.units import format_bytes

if TYPE_CHECKING:
    from astra.resolve import ResolvedInput

__all__ = ["Builder", "find_root", "list_universes", "load_outputs", "named", "select"]

# The kernel gives a program no more than this, together with its environment.
_MAX_COMMAND = os.sysconf("SC_ARG_MAX") - 128 * 1024
_FROM_CODES = frozenset({"INVALID_FROM", "INVALID_DECISION_FROM", "INVALID_OUTPUT_FROM"})


class _Recipe:
    """The properties of an output that every universe shares."""

    def __init__(self, tree: Tree, scope: Scope, definition: Node) -> None:
        recipe: Node = definition["recipe"]
        self.label = f"Output '{definition['id']}' in {tree.file(scope)}"
        self.command: str = recipe["command"]
        self.decisions: list[tuple[str, str]] = [
            (name, self._qualify(tree, scope, name)) for name in definition["decisions"]
        ]
        self.resources: Resources = read_resources(recipe.get("resources"), self.label)
        self.container: str | None = None
        if "container" in recipe:
            self.container = recipe["container"]
        else:
            for depth in range(len(scope), -1, -1):
                self.container = self.container or tree.nodes[scope[:depth]].get("container")
        self._templates: dict[tuple[str, ...], Template] = {}

    def template(self, inputs: tuple[str, ...]) -> Template:
        """Return the template of the command for these inputs."""
        if inputs not in self._templates:
            decisions = [name for name, _ in self.decisions]
            self._templates[inputs] = compile_template(self.command, inputs, decisions, self.label)
        return self._templates[inputs]

    def uses(self, placeholder: str) -> bool:
        """Return whether the command contains this very placeholder."""
        return f"{{{placeholder}}}" in self.command

    def _qualify(self, tree: Tree, scope: Scope, name: str) -> str:
        """Return the qualified id of a declared decision.

        Raises:
            SpecError: where there is no such decision.
        """
        # Not declared where the output is: today's projects mean the analysis around it.
        for depth in range(len(scope), -1, -1):
            if name in tree.nodes[scope[:depth]]["decisions"]:
                return ".".join((*scope[:depth], name))
        remedy = suggest(
            name, list(tree.nodes[scope]["decisions"]), "correct the name or declare it."
        )
        raise SpecError(f"{self.label} lists a decision '{name}', which is not declared: {remedy}")


class Builder:
    """Builder of outputs from the analysis that ``astra`` resolves.

    All outputs depend on the files that match ``depend_on``. In inputs that are directories those
    that match ``ignore`` do not count.
    """

    def __init__(
        self,
        tree: Tree,
        locations: Locations,
        depend_on: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
    ) -> None:
        self.tree = tree
        self.locations = locations
        self.depend_on = depend_on
        self.ignore = ignore
        self.root_prefix = f"{tree.root}/"
        self.recipes: dict[str, _Recipe] = {}
        self.sources = InputSources(tree)
        self.inputs_at = {scope: _by_id(node["inputs"]) for scope, node in tree.nodes.items()}
        self.outputs_at = {scope: _by_id(node["outputs"]) for scope, node in tree.nodes.items()}
        self.resolver = Resolver(tree)
        self.has_constraints = has_constraints(tree)
        self.universe = Universe("", {})
        self.settled: dict[str, str] = {}
        self.targets: dict[str | None, tuple[str, str, Value]] = {}

    def outputs(self, universe: Universe) -> Iterator[Output]:
        """Yield the outputs of one universe in topological order."""
        self.universe = universe
        self.settled = self.resolver.settle(universe)
        check_choices(self.tree, universe, self.settled)
        if self.has_constraints:
            check_constraints(self.tree, universe, self.settled)
        resolution = self.resolver.outputs(universe, self.settled)
        self.targets = {
            name: self._locate(each.scope, name) for name, each in resolution.made.items()
        }
        for name, each in resolution.made.items():
            yield self._output(each, resolution.aliases.get(name, ()))

    def _output(self, resolved: Resolved, aliases: tuple[str, ...]) -> Output:
        name = resolved.id
        recipe = self.recipes.get(name)
        if recipe is None:
            recipe = _Recipe(self.tree, resolved.scope, resolved.definition)
            self.recipes[name] = recipe
        place, state, value = self.targets[name]
        values = {"output": value}
        inputs = []
        for given in resolved.inputs:
            target = self.targets.get(given.produced_by)
            if target is not None:
                entry = Input(given.id, target[2].words[0], target[0], given.produced_by)
                values[f"inputs.{given.id}"] = target[2]
            else:
                outside = self._input(resolved.scope, given, recipe)
                if outside is None:
                    continue
                entry, values[f"inputs.{given.id}"] = outside
            inputs.append(entry)
        decisions = []
        for decision, key in recipe.decisions:
            option = self.settled.get(key)
            if option is not None:
                decisions.append((decision, option))
            elif recipe.uses(f"decisions.{decision}"):
                option = self._inactive(resolved.scope, decision, recipe)
            values[f"decisions.{decision}"] = Value((option or "",))
        template = recipe.template(tuple([each.id for each in inputs]))
        command = template.render_as_written(values)
        if "\0" in command:
            raise SpecError(f"{recipe.label}: the command has a NUL character: remove it.")
        if len(command) > _MAX_COMMAND // 4 and len(command.encode()) > _MAX_COMMAND:
            raise SpecError(
                f"{recipe.label}: the command with its paths has {format_bytes(len(command))}, and "
                f"no program can be given more than {format_bytes(_MAX_COMMAND)} here: read the "
                "inputs in several steps, or from a directory."
            )
        shell_template = None
        if any(value.differs for value in values.values()):
            patterns = {f"inputs.{each.id}" for each in inputs if each.pattern is not None}
            shell_template = template.fill(
                {name: value for name, value in values.items() if name not in patterns}
            )
        return Output(
            universe=self.universe.name,
            id=name,
            root=self.tree.root,
            place=place,
            state=state,
            is_directory=self.locations.layout is Layout.DIRECTORY,
            command=command,
            template=recipe.command,
            inputs=tuple(inputs),
            decisions=tuple(decisions),
            container=recipe.container,
            resources=recipe.resources,
            aliases=aliases,
            depend_on=self.depend_on,
            ignore=self.ignore,
            shell_template=shell_template,
        )

    def _input(
        self, scope: Scope, given: ResolvedInput, recipe: _Recipe
    ) -> tuple[Input, Value] | None:
        """Return an input that no recipe makes, with its value, or None if unneeded.

        Raises:
            SpecError: where the command needs an input that does not exist.
        """
        producer = given.produced_by
        definition = None
        if producer is not None:
            *above, local = producer.split(".")
            definition = self.outputs_at.get(tuple(above), {}).get(local)
            if definition is not None and not has_recipe(definition):
                place, _, value = self._locate(tuple(above), producer)
                return Input(given.id, value.words[0], place, None, True), value
        elif given.source:
            location = self.sources.find(scope, given.source)
            entry = Input(
                given.id,
                location.text,
                location.path,
                None,
                location.certain,
                () if location.words == (location.text,) else location.words,
                location.pattern,
                location.unset,
            )
            return entry, Value(entry.value, None if location.is_name else location.text)
        inputs, outputs = self.inputs_at[scope], self.outputs_at[scope]
        is_known = given.id in inputs or given.id in outputs
        if definition is None and (producer is not None or not is_known):
            problem = "is neither an input nor an output"
            remedy = suggest(given.id, [*inputs, *outputs], "correct the name or declare it.")
            if producer is not None:
                problem = f"is to be made by '{producer}', which is not declared"
                remedy = "correct the name or declare it."
        elif definition is None and self._is_dangling(scope, given.id):
            problem = "leads nowhere by its 'from'"
            remedy = "correct that, or give it a 'source' instead."
        elif not recipe.uses(f"inputs.{given.id}"):
            return None
        elif definition is not None:
            problem = f"is not made in universe '{self.universe.name}'"
            remedy = "give both the same 'when'."
        else:
            problem, remedy = "has no 'source'", "give it one."
        reason = explain(self.tree, scope, _FROM_CODES)
        raise SpecError(f"{recipe.label}: its input '{given.id}' {problem}{reason}: {remedy}")

    def _is_dangling(self, scope: Scope, name: str) -> bool:
        """Return whether an input's ``from`` leads to no input."""
        from astra.helpers import parse_from_path

        declared = self.inputs_at[scope].get(name)
        while declared is not None and declared.get("from"):
            parsed = parse_from_path(declared["from"])
            if parsed is None or not 0 < parsed[0] <= len(scope):
                return True
            scope = scope[: len(scope) - parsed[0]]
            declared = self.inputs_at[scope].get(parsed[1][-1])
        return declared is None

    def _inactive(self, scope: Scope, name: str, recipe: _Recipe) -> str:
        """Return the option of a decision that is inactive in this universe.

        Raises:
            SpecError: where neither the universe nor a default gives one.
        """
        node = self.universe.data
        for sub in scope:
            node = (node.get("analyses") or {}).get(sub) or {}
        decision: Node = self.tree.nodes[scope]["decisions"].get(name, {})
        option: str | None = (node.get("decisions") or {}).get(name) or decision.get("default")
        if option is None:
            reason = explain(self.tree, scope, _FROM_CODES)
            raise SpecError(
                f"{recipe.label}: the command has {{decisions.{name}}}, but universe "
                f"'{self.universe.name}' has no option for it{reason}: give the decision a "
                "'default', or the output the same 'when'."
            )
        if decision.get("options") and option not in decision["options"]:
            known = list(decision["options"])
            remedy = suggest(option, known, f"choose one of {listed(known)}.")
            raise SpecError(
                f"Decision '{name}' in {self.tree.file(scope)} has the default '{option}': {remedy}"
            )
        return option

    def _locate(self, scope: Scope, name: str) -> tuple[str, str, Value]:
        """Return an output's path, state directory and value in commands."""
        local = name.rpartition(".")[2]
        place, state = self.locations.find(self.universe.name, scope, local)
        return place, state, Value((self._display_path(place),))

    def _display_path(self, place: str) -> str:
        """Return a path as a user would type it in the project's directory."""
        return place.removeprefix(self.root_prefix)


def _by_id(entries: list[Node]) -> dict[str, Node]:
    return {entry["id"]: entry for entry in entries}


def load_outputs(
    root: Path,
    settings: Settings,
    universe: str | None = None,
    warnings: list[str] | None = None,
) -> list[Output]:
    """Load every output with a recipe in topological order.

    ``universe`` limits them to the universe of that name. ``warnings`` receives a sentence for
    each part of the spec that is ignored.

    Raises:
        SpecError: where the spec or a universe cannot be used.
        UsageError: where there is no such universe.
        SettingsError: where the settings name an output that is not declared.
    """
    with gc_paused(), _silence_astra():
        tree = load_tree(root)
        check_conditions(tree)
        if settings.outputs:
            _check_named(tree, settings)
        universes = load_universes(tree, universe)
        layout = find_layout(tree, settings.layout, list_universes(root))
        locations = Locations.of(tree, layout)
        builder = Builder(tree, locations, settings.depend_on, settings.ignore)
        if warnings is not None:
            warnings += tree.unknown.warnings()
            warnings += broken_reexports(tree)
            warnings += unread_universes(tree)
        return [output for each in universes for output in builder.outputs(each)]


def _check_named(tree: Tree, settings: Settings) -> None:
    """Refuse settings of an output that the project does not declare."""
    declared = [
        ".".join((*scope, output["id"]))
        for scope, node in tree.nodes.items()
        for output in node["outputs"]
    ]
    universes = list_universes(tree.root)
    ids = frozenset(declared)
    for name in settings.outputs:
        universe, _, id = name.rpartition("/")
        kind, known, wrong = ("output", declared, id)
        if id in ids:
            kind, known, wrong = ("universe", universes, universe)
        if wrong and wrong not in known:
            remedy = suggest(wrong, known, "correct the name, or remove the section.")
            raise SettingsError(
                f"[outputs.{name}] in {tree.root / SETTINGS_FILE}: there is no {kind} "
                f"'{wrong}': {remedy}"
            )


@contextlib.contextmanager
def _silence_astra() -> Iterator[None]:
    """Keep the log messages of ``astra`` off the terminal.

    The checks in this package report the problems that matter.
    """
    import logging

    logger = logging.getLogger("astra")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
