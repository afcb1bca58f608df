"""Outputs, made of what ``astra`` resolves and of where things lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lightcone.analysis.diagnosis import check_choices, explain, hint
from lightcone.analysis.layout import Layout, Places
from lightcone.analysis.order import in_order
from lightcone.analysis.output import Input, Output, Resources
from lightcone.analysis.resources import read_resources
from lightcone.analysis.shape import Node
from lightcone.analysis.template import Template, Value, compile_template
from lightcone.analysis.tree import Scope, Tree
from lightcone.analysis.universes import Universe
from lightcone.errors import SpecError

if TYPE_CHECKING:
    from astra.resolve import ResolvedInput, ResolvedOutput

__all__ = ["Builder"]

# A source that may well be a path though there is nothing there yet.
_LIKE_A_PATH = re.compile(r"[\w@%+=:,./~-]+")
_FROM_CODES = frozenset({"INVALID_FROM", "INVALID_DECISION_FROM", "INVALID_OUTPUT_FROM"})


class _Recipe:
    """What is the same about an output in every universe."""

    def __init__(self, tree: Tree, scope: Scope, definition: Node) -> None:
        recipe: Node = definition["recipe"]
        self.what = f"Output '{definition['id']}' in {tree.file(scope)}"
        self.command: str = recipe["command"]
        self.decisions: list[str] = definition["decisions"]
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
            self._templates[inputs] = compile_template(
                self.command, inputs, self.decisions, self.what
            )
        return self._templates[inputs]

    def mentions(self, placeholder: str) -> bool:
        """Whether the command names that very placeholder."""
        return f"{{{placeholder}}}" in self.command


class Builder:
    """Makes outputs of what ``astra`` resolves, all of which depend on ``depend_on``."""

    def __init__(self, tree: Tree, places: Places, depend_on: tuple[str, ...] = ()) -> None:
        self.tree = tree
        self.places = places
        self.depend_on = depend_on
        self.inside = f"{tree.root}/"
        self.recipes: dict[str, _Recipe] = {}
        self.sources: dict[tuple[Scope, str], tuple[str, Path | None]] = {}
        self.universe = Universe("", {})
        self.made: dict[str, ResolvedOutput] = {}
        self.paths: dict[str, tuple[Path, Path]] = {}
        self.settled: dict[str, str] | None = None

    def outputs(self, universe: Universe) -> Iterator[Output]:
        """The outputs of one universe, in dependency order."""
        from astra.resolve import resolve_outputs

        check_choices(self.tree, universe)
        resolved = resolve_outputs(self.tree.data, universe.data)
        self.universe = universe
        self.settled = None
        self.made = {
            each.id: each for each in resolved if not each.reexports and _is_made(each.definition)
        }
        self.paths = {name: self._place(each.scope, name) for name, each in self.made.items()}
        aliases: dict[str, list[str]] = {}
        for each in resolved:
            if each.reexports:
                aliases.setdefault(each.reexports, []).append(each.id)
        for name in in_order(self.made):
            yield self._output(self.made[name], tuple(aliases.get(name, ())))

    def _output(self, resolved: ResolvedOutput, aliases: tuple[str, ...]) -> Output:
        name = resolved.id
        recipe = self.recipes.get(name)
        if recipe is None:
            recipe = _Recipe(self.tree, resolved.scope, resolved.definition)
            self.recipes[name] = recipe
        inputs = tuple(
            found
            for given in resolved.inputs
            if (found := self._input(resolved.scope, given, recipe)) is not None
        )
        path, state_dir = self.paths[name]
        values = {"output": Value(self._shown(path))}
        for each in inputs:
            values[f"inputs.{each.id}"] = Value(each.text, expands=each.producer is None)
        decisions = []
        for decision in recipe.decisions:
            option = self._option(resolved, decision, recipe)
            if option is not None:
                decisions.append((decision, option))
            elif recipe.mentions(f"decisions.{decision}"):
                option = self._inactive(resolved.scope, decision, recipe)
            values[f"decisions.{decision}"] = Value(option or "")
        command = recipe.template(tuple(each.id for each in inputs)).render(values)
        if "\0" in command:
            raise SpecError(f"{recipe.what}: the command has a NUL character: remove it.")
        return Output(
            universe=self.universe.name,
            id=name,
            root=self.tree.root,
            path=path,
            state_dir=state_dir,
            is_directory=self.places.layout is Layout.DIRECTORY,
            command=command,
            template=recipe.command,
            inputs=inputs,
            decisions=tuple(decisions),
            container=recipe.container,
            resources=recipe.resources,
            aliases=aliases,
            depend_on=self.depend_on,
        )

    def _input(self, scope: Scope, given: ResolvedInput, recipe: _Recipe) -> Input | None:
        """One input, or None where this universe does not have it and the command can do without.

        Raises:
            SpecError: where the command needs what there is not.
        """
        producer = given.produced_by
        if producer is not None and producer in self.made:
            path = self.paths[producer][0]
            return Input(given.id, self._shown(path), path, producer)
        definition = None
        if producer is not None:
            *above, local = producer.split(".")
            definition = _find(self.tree, tuple(above), local)
            if definition is not None and not _is_made(definition):
                path = self._place(tuple(above), producer)[0]
                return Input(given.id, self._shown(path), path, None)
        elif given.source:
            return Input(given.id, *self._source(scope, given.source), None)
        node = self.tree.nodes[scope]
        known = [entry["id"] for entry in node["inputs"] + node["outputs"]]
        if definition is None and (producer is not None or given.id not in known):
            problem = "is neither an input nor an output"
            remedy = hint(given.id, known, "correct the name or declare it.")
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

    def _option(self, resolved: ResolvedOutput, name: str, recipe: _Recipe) -> str | None:
        """The option chosen for a declared decision; None where its condition does not hold.

        Raises:
            SpecError: where there is no such decision.
        """
        option: str | None = resolved.decisions.get(name)
        scope = resolved.scope
        if option is not None or name in self.tree.nodes[scope]["decisions"]:
            return option
        # Not declared where the output is: today's projects mean the analysis around it.
        for depth in range(len(scope) - 1, -1, -1):
            if name in self.tree.nodes[scope[:depth]]["decisions"]:
                return self._settled_above().get(".".join((*scope[:depth], name)))
        known = list(self.tree.nodes[scope]["decisions"])
        meant = hint(name, known, "correct the name or declare it.")
        raise SpecError(f"{recipe.what} lists a decision '{name}', which is not declared: {meant}")

    def _settled_above(self) -> dict[str, str]:
        if self.settled is None:
            from astra.resolve import resolve_universe

            settled: dict[str, str] = resolve_universe(self.tree.data, self.universe.data)
            self.settled = settled
        return self.settled

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

    def _source(self, scope: Scope, source: str) -> tuple[str, Path | None]:
        """What a command gets for an external source, and its path where it is one."""
        home = self.tree.home(scope)
        if (home, source) not in self.sources:
            self.sources[(home, source)] = self._look_up(home, source.strip())
        return self.sources[(home, source)]

    def _look_up(self, home: Scope, source: str) -> tuple[str, Path | None]:
        if "://" in source:
            return source, None
        expanded = os.path.expandvars(os.path.expanduser(source))
        # Commands run in the root, and so the sources of today's projects are meant from there.
        for base in (self.tree.root, self.tree.directories[home]):
            candidate = os.path.normpath(os.path.join(base, expanded))
            if os.path.lexists(candidate):
                path = Path(candidate)
                as_written = expanded != source or os.path.normpath(source) == self._shown(path)
                return source if as_written else self._shown(path), path
        path = Path(os.path.normpath(os.path.join(self.tree.root, expanded)))
        return source, path if _LIKE_A_PATH.fullmatch(source) else None

    def _place(self, scope: Scope, name: str) -> tuple[Path, Path]:
        local = name.rpartition(".")[2]
        path, state = self.places.find(self.universe.name, scope, local)
        return Path(path), Path(state)

    def _shown(self, path: Path) -> str:
        """A path as one would type it in the project's directory."""
        text = str(path)
        return text[len(self.inside) :] if text.startswith(self.inside) else text


def _find(tree: Tree, scope: Scope, name: str) -> Node | None:
    node = tree.nodes.get(scope)
    outputs: list[Node] = node["outputs"] if node is not None else []
    return next((entry for entry in outputs if entry["id"] == name), None)


def _is_made(definition: Node) -> bool:
    """Whether an output has a recipe; one without is put there by hand."""
    command: str = (definition.get("recipe") or {}).get("command") or ""
    return bool(command.strip())
