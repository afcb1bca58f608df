"""Checks of an analysis and its universes for errors that change the work.

``astra`` finds more than that. An analysis that is being written has findings which stop nobody,
so only what would make the wrong thing, or nothing without a word, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lightcone.errors import SpecError
from lightcone.spec.schema import Node
from lightcone.spec.tree import Scope, Tree
from lightcone.spec.universes import Universe

__all__ = ["check_choices", "check_conditions", "explain", "suggest"]


def suggest(name: str, known: list[str], fallback: str) -> str:
    """Suggest the most similar known name, or else ``fallback``."""
    from difflib import get_close_matches

    matches = get_close_matches(name, known, 1)
    return f"did you mean '{matches[0]}'?" if matches else fallback


def check_conditions(tree: Tree) -> None:
    """Refuse a ``when`` condition on an undeclared decision or option.

    Raises:
        SpecError: naming the first such condition.
    """
    for scope, node in tree.nodes.items():
        for output in node["outputs"]:
            for condition in _conditions(output):
                label = f"Output '{output['id']}' in {tree.file(scope)}"
                _check_condition(tree, scope, condition, label, above=False)
        for name, decision in node["decisions"].items():
            for condition in _conditions(decision):
                label = f"Decision '{name}' in {tree.file(scope)}"
                _check_condition(tree, scope, condition, label, above=True)


def check_choices(tree: Tree, universe: Universe) -> None:
    """Refuse a universe with an unknown choice or without a needed one.

    Raises:
        SpecError: naming the first such choice.
    """
    from astra.validation import validate_universe

    try:
        findings = validate_universe(universe.data, tree.data)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpecError(
            f"Universe '{universe.name}' cannot be matched with astra.yaml ({error}): compare its "
            "decisions and sub-analyses with those declared there."
        ) from error
    for finding in findings:
        scope, name = _locate(finding.path or "", finding.message)
        message = _CHOICES.get(finding.code, _no_message)(tree, universe, scope, name)
        if message:
            raise SpecError(message)


def explain(tree: Tree, scope: Scope, codes: frozenset[str]) -> str:
    """Return the first finding of ``astra`` under one of ``codes``, or "".

    Only findings about the analysis at ``scope`` count.
    """
    from astra.validation import validate_analysis

    try:
        findings = validate_analysis(tree.data)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return ""
    prefix = ".".join(part for name in scope for part in ("analyses", name))
    for finding in findings:
        if finding.code in codes and (finding.path or "").startswith(prefix):
            return f" ({finding.message})"
    return ""


def _conditions(element: Node) -> Iterator[str]:
    when = element.get("when")
    yield from [when] if isinstance(when, str) else when or []


def _check_condition(tree: Tree, scope: Scope, condition: str, label: str, *, above: bool) -> None:
    from astra.helpers import parse_option_ref

    reference = parse_option_ref(condition.lstrip("~"))
    if reference is None:
        raise SpecError(
            f"{label} has the condition '{condition}': write it as 'decision.option', with '~' "
            "before it for the opposite."
        )
    name, option = reference
    scopes = [scope[:depth] for depth in range(len(scope), -1, -1)] if above else [scope]
    for candidate in scopes:
        if name in tree.nodes[candidate]["decisions"]:
            options = _options(tree, candidate, name)
            if options and option not in options:
                known = ", ".join(options)
                raise SpecError(
                    f"{label} has the condition '{condition}', but decision '{name}' has no option "
                    f"'{option}': {suggest(option, list(options), f'use one of {known}.')}"
                )
            return
    known_names = [known for candidate in scopes for known in tree.nodes[candidate]["decisions"]]
    fallback = "correct the name, or declare it here with 'from: ../' where it belongs above."
    raise SpecError(
        f"{label} has the condition '{condition}', but there is no decision '{name}': "
        f"{suggest(name, known_names, fallback)}"
    )


def _options(tree: Tree, scope: Scope, name: str) -> Node:
    """Return the options of a decision, following aliases."""
    from astra.helpers import parse_from_path

    decision: Node = tree.nodes[scope]["decisions"].get(name, {})
    while parsed := parse_from_path(decision.get("from") or ""):
        if not 0 < parsed[0] <= len(scope):
            break
        scope, name = scope[: len(scope) - parsed[0]], parsed[1][-1]
        decision = tree.nodes[scope]["decisions"].get(name, {})
    options: Node = decision.get("options") or {}
    return options


def _locate(path: str, message: str) -> tuple[Scope, str]:
    """Return the scope and the decision, if any, of a finding."""
    scope = []
    parts = path.split(".")
    while len(parts) > 1 and parts[0] == "analyses":
        scope.append(parts[1])
        parts = parts[2:]
    quoted = re.search(r"'([^']*)'", message)
    return tuple(scope), parts[1] if len(parts) > 1 else quoted[1] if quoted else ""


def _no_message(tree: Tree, universe: Universe, scope: Scope, name: str) -> str:
    return ""


def _unknown_decision(tree: Tree, universe: Universe, scope: Scope, name: str) -> str:
    known = list(tree.nodes[scope]["decisions"])
    return (
        f"{_chooser(universe, scope)} chooses for a decision '{name}'{_of(scope)} that is not in "
        f"{tree.file(scope)}: {suggest(name, known, 'remove it or declare it there.')}"
    )


def _unknown_option(tree: Tree, universe: Universe, scope: Scope, name: str) -> str:
    node: Node = universe.data
    for sub in scope:
        node = node["analyses"][sub]
    options = tree.nodes[scope]["decisions"][name].get("options")
    if not options:
        return ""
    chosen = node["decisions"][name]
    known = suggest(chosen, list(options), f"choose one of {', '.join(options)}.")
    return (
        f"{_chooser(universe, scope)} chooses '{chosen}' for decision '{name}'{_of(scope)}: {known}"
    )


def _unknown_analysis(tree: Tree, universe: Universe, scope: Scope, _: str) -> str:
    known = list(tree.nodes[scope[:-1]]["analyses"])
    return (
        f"{_chooser(universe, scope[:-1])} chooses for a sub-analysis '{scope[-1]}' that is not in "
        f"{tree.file(scope[:-1])}: {suggest(scope[-1], known, 'remove it.')}"
    )


def _missing_decision(tree: Tree, universe: Universe, scope: Scope, name: str) -> str:
    if name not in _needed(tree, scope):
        return ""
    options = list(tree.nodes[scope]["decisions"][name].get("options") or {})
    if not universe.file(scope):
        return (
            f"Decision '{name}' in {tree.file(scope)} has no default: give it one, or choose in "
            f"universes/{universe.name}.yaml."
        )
    known = f", one of {', '.join(options)}" if options else ""
    return (
        f"{_chooser(universe, scope)} makes no choice for decision '{name}'{_of(scope)}: "
        f"add it to its decisions{known}."
    )


def _chooser(universe: Universe, scope: Scope) -> str:
    return universe.file(scope) or "The default universe"


def _of(scope: Scope) -> str:
    return f" of '{'.'.join(scope)}'" if scope else ""


def _needed(tree: Tree, scope: Scope) -> set[str]:
    """Return the decisions that the analysis at ``scope`` and those below use."""
    needed = set()
    for below, node in tree.nodes.items():
        if below[: len(scope)] != scope:
            continue
        for output in node["outputs"]:
            needed.update(output["decisions"])
            needed.update(item.lstrip("~").partition(".")[0] for item in _conditions(output))
        for decision in node["decisions"].values():
            needed.update(item.lstrip("~").partition(".")[0] for item in _conditions(decision))
            if decision.get("from"):
                needed.add(decision["from"].rpartition("/")[2])
    return needed


_CHOICES = {
    "UNKNOWN_DECISION": _unknown_decision,
    "UNKNOWN_OPTION": _unknown_option,
    "UNKNOWN_ANALYSIS": _unknown_analysis,
    "MISSING_DECISION": _missing_decision,
}
