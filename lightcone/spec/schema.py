"""Checks of the form of an analysis or a universe.

An error is one sentence. Unusual forms are normalized in place, so that ``astra`` finds the shapes
it assumes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lightcone.errors import SpecError
from lightcone.spec import keys
from lightcone.spec.keys import UnknownKeys

__all__ = ["check_analysis", "check_universe"]

Node = dict[str, Any]

# An output's id becomes the name of a file, a sub-analysis's a part of one; a dot separates them.
_ID = re.compile(r"\w[\w+@=-]*")
_NUMBER = re.compile(r"[-+]?[\d_]*\.?\d+(?:[eE][-+]?\d+)?")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n", "none"})


def check_analysis(node: object, file: str, unknown: UnknownKeys, position: str = "") -> Node:
    """Check and normalize an analysis at ``position`` in ``file``.

    Prior insights and findings are left out: they say nothing about the work to do. ``unknown``
    records the keys that are ignored.

    Raises:
        SpecError: where it cannot be normalized.
    """
    where = f"{file}, {position}" if position else file
    if node is None and not position:
        raise SpecError(f"{file} is empty: declare what it makes under 'outputs'.")
    if not isinstance(node, dict):
        raise SpecError(f"{where} must be a mapping with 'inputs', 'outputs' and 'decisions'.")
    unknown.check(keys.ANALYSIS, node, where, file)
    for part in ("prior_insights", "findings"):
        node.pop(part, None)
    _text(node, "container", where)
    _text(node, "path", where)
    _entries(node, "inputs", where)
    for entry in node["inputs"]:
        label = f"Input '{entry['id']}' in {where}"
        if "." in entry["id"]:
            # ASTRA takes such a name for an output of a sub-analysis, and so never for this input.
            _check_id("Input", entry["id"], where)
        unknown.check(keys.INPUT, entry, label, file)
        _text(entry, "source", label)
        _text(entry, "from", label)
        _pure_alias(entry, ("source",), label)
    _entries(node, "outputs", where)
    for entry in node["outputs"]:
        _check_output(entry, where, file, unknown)
    _refuse_ambiguous(node, where)
    _mappings(node, "decisions", where)
    for name, decision in node["decisions"].items():
        _check_id("Decision", name, where)
        _check_decision(decision, f"Decision '{name}' in {where}", file, unknown)
    _mappings(node, "analyses", where)
    for name, sub in node["analyses"].items():
        _check_id("Sub-analysis", name, where)
        below = f"{position}.analyses.{name}" if position else f"analyses.{name}"
        check_analysis(sub, file, unknown, below)
    return node


def check_universe(node: object, file: str, position: str = "") -> Node:
    """Check and normalize a universe at ``position`` in ``file``.

    Raises:
        SpecError: where it cannot be normalized.
    """
    where = f"{file}, {position}" if position else file
    if node is None and not position:
        raise SpecError(f"{file} is empty: write the options it chooses under 'decisions'.")
    if node is None:
        node = {}
    if not isinstance(node, dict):
        raise SpecError(f"{where} must be a mapping with 'decisions'.")
    # Every key of a universe decides something, so none of them is only recorded.
    UnknownKeys().check(keys.UNIVERSE_NODE if position else keys.UNIVERSE, node, where, file)
    _text(node, "universe", where)
    for part in ("decisions", "analyses"):
        if node.get("universe") and node.get(part):
            raise SpecError(
                f"{where} has both 'universe' and '{part}', of which only the first would count: "
                "remove one of them."
            )
    chosen = node.setdefault("decisions", {})
    if chosen is None:
        chosen = node["decisions"] = {}
    if not isinstance(chosen, dict):
        raise SpecError(f"'decisions' in {where} must be a mapping, as in 'decisions: {{a: b}}'.")
    for name, option in chosen.items():
        if not isinstance(name, str) or not isinstance(option, str):
            raise SpecError(f"Decision '{name}' in {where} must be given the name of one option.")
    subs = node.setdefault("analyses", {})
    if subs is None:
        subs = node["analyses"] = {}
    if not isinstance(subs, dict):
        raise SpecError(f"'analyses' in {where} must be a mapping from sub-analyses to choices.")
    for name, sub in subs.items():
        subs[name] = check_universe(
            sub, file, f"{position}.analyses.{name}" if position else f"analyses.{name}"
        )
    return node


def _check_output(entry: Node, where: str, file: str, unknown: UnknownKeys) -> None:
    label = f"Output '{entry['id']}' in {where}"
    _check_id("Output", entry["id"], where)
    unknown.check(keys.OUTPUT, entry, label, file)
    _text(entry, "from", label)
    _text(entry, "format", label)
    _texts(entry, "inputs", label)
    _texts(entry, "decisions", label)
    _when(entry, label)
    recipe = entry.get("recipe")
    if recipe is None:
        entry.pop("recipe", None)
        return
    if not isinstance(recipe, dict):
        raise SpecError(f"{label}: 'recipe' must be a mapping with a 'command'.")
    _pure_alias(entry, ("recipe",), label)
    unknown.check(keys.RECIPE, recipe, f"{label}: the recipe", file)
    _check_command(recipe, f"{label}: the recipe")
    _text(recipe, "container", f"{label}: the recipe")
    resources = recipe.get("resources")
    if resources is None:
        return
    if not isinstance(resources, dict):
        raise SpecError(f"{label}: 'resources' must be a mapping, as in 'resources: {{cpus: 2}}'.")
    unknown.check(keys.RESOURCES, resources, f"{label}: 'resources'", file)


def _check_command(recipe: Node, label: str) -> None:
    """Refuse a recipe that would do nothing."""
    if "command" not in recipe:
        raise SpecError(f"{label} has no 'command': add it, or remove the recipe.")
    _text(recipe, "command", label)
    command: str = recipe["command"] or ""
    lines = [line.strip() for line in command.splitlines()]
    if all(not line or line.startswith("#") for line in lines):
        raise SpecError(
            f"{label} has an empty 'command': write the shell command that makes the output, or "
            "remove the recipe."
        )
    if _NUMBER.fullmatch(command.strip()):
        raise SpecError(f"{label}: 'command' must be a shell command, not {command.strip()}.")


def _refuse_ambiguous(node: Node, where: str) -> None:
    """Refuse an id that an output takes as input where it names both an input and an output."""
    both = {entry["id"] for entry in node["inputs"]} & {entry["id"] for entry in node["outputs"]}
    for output in node["outputs"] if both else ():
        for name in output["inputs"]:
            if name in both:
                raise SpecError(
                    f"Output '{output['id']}' in {where} has '{name}' under 'inputs', which names "
                    "both an input and an output there: rename one of the two."
                )


def _check_decision(decision: Node, label: str, file: str, unknown: UnknownKeys) -> None:
    unknown.check(keys.DECISION, decision, label, file)
    _text(decision, "from", label)
    _text(decision, "default", label)
    _pure_alias(decision, ("options", "default"), label)
    _when(decision, label)
    options = decision.get("options")
    if options is None:
        options = decision["options"] = {}
    if not isinstance(options, dict):
        raise SpecError(f"{label}: 'options' must be a mapping from option ids to their labels.")
    for name, option in options.items():
        if not isinstance(name, str):
            raise SpecError(f"{label}: an option's id must be text; quote {name!r}.")
        if not isinstance(option, dict):
            options[name] = option = {}
        unknown.check(keys.OPTION, option, f"{label}: option '{name}'", file)
        excluded = option.get("excluded")
        if not isinstance(excluded, bool):
            word = str(excluded).lower()
            if word not in _TRUE | _FALSE:
                raise SpecError(f"{label}: 'excluded' of option '{name}' must be true or false.")
            option["excluded"] = word in _TRUE
        for constraint in ("requires", "incompatible_with", "insights"):
            value = option.get(constraint)
            listed: Iterable[Any] = value if isinstance(value, list) else [value]
            option[constraint] = [str(item) for item in listed if item is not None]


def _check_id(kind: str, name: object, where: str) -> None:
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise SpecError(
            f"{kind} id {name!r} in {where} cannot be used: take letters, digits and '_'."
        )


def _entries(node: Node, key: str, where: str) -> None:
    """Make ``node[key]`` a list of mappings with unique ids."""
    entries = node.get(key)
    if entries is None:
        entries = node[key] = []
    if not isinstance(entries, list):
        raise SpecError(f"'{key}' in {where} must be a list of entries, each with an 'id'.")
    seen = set()
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise SpecError(
                f"Entry {number} of '{key}' in {where} has no 'id': write it as '- id: a_name'."
            )
        if entry["id"] in seen:
            raise SpecError(
                f"'{key}' in {where} has the id '{entry['id']}' twice: rename one of them."
            )
        seen.add(entry["id"])


def _mappings(node: Node, key: str, where: str) -> None:
    """Make ``node[key]`` a mapping from names to mappings."""
    table = node.get(key)
    if table is None:
        table = node[key] = {}
    if not isinstance(table, dict):
        raise SpecError(f"'{key}' in {where} must be a mapping from ids to their definitions.")
    for name, value in table.items():
        if value is None:
            table[name] = {}
        elif not isinstance(value, dict):
            raise SpecError(f"'{name}' under '{key}' in {where} must be a mapping.")


def _pure_alias(node: Node, parts: tuple[str, ...], label: str) -> None:
    """Refuse the keys ``parts`` beside ``from``, which overrides them."""
    if node.get("from"):
        for part in parts:
            if node.get(part):
                raise SpecError(
                    f"{label} has both 'from' and '{part}', of which only the first would count: "
                    "remove one of them."
                )


def _text(node: Node, key: str, label: str) -> None:
    value = node.get(key)
    if value is not None and not isinstance(value, str):
        raise SpecError(f"{label}: '{key}' must be text.")


def _texts(node: Node, key: str, label: str) -> None:
    value = node.get(key)
    if value is None:
        node[key] = []
    elif not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SpecError(f"{label}: '{key}' must be a list of ids, as in '{key}: [a, b]'.")


def _when(node: Node, label: str) -> None:
    value = node.get("when")
    items = [value] if isinstance(value, str) else value
    if items is None:
        return
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise SpecError(f"{label}: 'when' must be a condition 'decision.option' or a list of such.")
