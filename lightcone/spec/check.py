"""Checks of an analysis and its universes for errors that change the work.

``astra`` finds more than that. An analysis that is being written has findings which stop nobody,
so only what would make the wrong thing, or nothing without a word, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING

from lightcone.errors import SpecError
from lightcone.spec.schema import Node
from lightcone.spec.suggestions import capped, listed, suggest
from lightcone.spec.tree import Scope, Tree
from lightcone.spec.universes import Universe

if TYPE_CHECKING:
    from astra.validation import SemanticError

__all__ = [
    "broken_reexports",
    "check_choices",
    "check_conditions",
    "check_constraints",
    "explain",
    "has_constraints",
]


def check_conditions(tree: Tree) -> None:
    """Refuse a condition or constraint on an undeclared decision or option.

    Raises:
        SpecError: naming the first such reference.
    """
    for scope, node in tree.nodes.items():
        for output in node["outputs"]:
            for condition in _conditions(output):
                label = f"Output '{output['id']}' in {tree.file(scope)} has the condition"
                _check_reference(tree, scope, condition, label, above=False)
        for name, decision in node["decisions"].items():
            for condition in _conditions(decision):
                label = f"Decision '{name}' in {tree.file(scope)} has the condition"
                _check_reference(tree, scope, condition, label, above=True)
                if condition.lstrip("~").partition(".")[0] == name:
                    raise SpecError(f"{label} '{condition}', which is about itself: remove it.")
            for option_name, option in decision["options"].items():
                for constraint in _CONSTRAINTS:
                    for reference in option[constraint]:
                        label = (
                            f"Option '{option_name}' of decision '{name}' in {tree.file(scope)} "
                            f"has under '{constraint}'"
                        )
                        _check_reference(tree, scope, reference, label, above=False, negates=False)


def broken_reexports(tree: Tree) -> list[str]:
    """Return sentences on the outputs whose ``from`` leads to no output of a sub-analysis."""
    from astra.helpers import parse_from_path

    sentences = []
    declared: dict[Scope, set[str]] = {}
    for scope, node in tree.nodes.items():
        for output in node["outputs"]:
            if not output.get("from"):
                continue
            up, path = parse_from_path(output["from"]) or (1, [])
            below = (*scope, *path[:-1])
            if not up and len(path) > 1 and below in tree.nodes:
                if below not in declared:
                    declared[below] = {each["id"] for each in tree.nodes[below]["outputs"]}
                if path[-1] in declared[below]:
                    continue
            sentences.append(
                f"Output '{output['id']}' in {tree.file(scope)} stands for no output, as its "
                f"'from: {output['from']}' leads to none of a sub-analysis: correct it."
            )
    return capped(sentences)


def has_constraints(tree: Tree) -> bool:
    """Return whether some choices of declared options are not allowed."""
    return any(
        option["excluded"] or any(option[constraint] for constraint in _CONSTRAINTS)
        for node in tree.nodes.values()
        for decision in node["decisions"].values()
        for option in decision["options"].values()
    )


def check_choices(tree: Tree, universe: Universe, settled: Mapping[str, str]) -> None:
    """Refuse a universe with an unknown choice, without a needed one, or with one that is ignored.

    ``settled`` has the option of every active decision, by its qualified id.

    Raises:
        SpecError: naming the first such choice.
    """
    # Found once for all decisions, and only where one has no option.
    needed = cache(partial(_needed, tree))
    for finding in _findings(tree, universe, universe.data):
        scope, name = _locate(finding.path or "", finding.message)
        if finding.code == "MISSING_DECISION" and name not in needed()[scope]:
            continue
        if finding.code == "FROM_DECISION_IN_UNIVERSE":
            message = _ignored_choice(tree, universe, scope, name, settled)
        else:
            message = _CHOICES.get(finding.code, _no_message)(tree, universe, scope, name)
        if message:
            raise SpecError(message)
    _check_aliases(tree, universe, settled, needed)


def check_constraints(tree: Tree, universe: Universe, settled: Mapping[str, str]) -> None:
    """Refuse a universe that combines options which exclude each other.

    ``settled`` has the option of every active decision, by its qualified id: an inactive one
    constrains nothing.

    Raises:
        SpecError: naming the first such combination.
    """
    data: Node = {}
    for key, option in settled.items():
        *above, name = key.split(".")
        node = data
        for sub in above:
            node = node.setdefault("analyses", {}).setdefault(sub, {})
        node.setdefault("decisions", {})[name] = option
    for finding in _findings(tree, universe, data):
        if finding.code in _CONSTRAINED:
            scope, name = _locate(finding.path or "", finding.message)
            chosen = f"{_chooser(universe, scope)} chooses '{settled['.'.join((*scope, name))]}'"
            reason = _CONSTRAINED[finding.code](tree, scope, name, settled, finding.message)
            raise SpecError(f"{chosen} for decision '{name}'{_of(scope)}, which {reason}")


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


def _findings(tree: Tree, universe: Universe, data: Node) -> list[SemanticError]:
    """Return what ``astra`` finds in the choices ``data`` of a universe."""
    from astra.validation import validate_universe

    try:
        findings: list[SemanticError] = validate_universe(data, tree.data)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpecError(
            f"Universe '{universe.name}' cannot be matched with astra.yaml ({error}): compare its "
            "decisions and sub-analyses with those declared there."
        ) from error
    return findings


def _check_aliases(
    tree: Tree,
    universe: Universe,
    settled: Mapping[str, str],
    needed: Callable[[], Mapping[Scope, set[str]]],
) -> None:
    """Refuse a needed decision whose ``from`` leads to no decision."""
    for scope, node in tree.nodes.items():
        for name, decision in node["decisions"].items():
            if not decision.get("from") or ".".join((*scope, name)) in settled:
                continue
            if _target(tree, scope, name) is None and name in needed()[scope]:
                reason = explain(tree, scope, frozenset({"INVALID_DECISION_FROM"}))
                raise SpecError(
                    f"Decision '{name}' in {tree.file(scope)} has no option in universe "
                    f"'{universe.name}', as its 'from: {decision['from']}' leads to no "
                    f"decision{reason}: correct it."
                )


def _check_reference(
    tree: Tree, scope: Scope, reference: str, label: str, *, above: bool, negates: bool = True
) -> None:
    """Refuse a ``decision.option`` that is not declared at ``scope``, or ``above`` it."""
    from astra.helpers import parse_option_ref

    parsed = parse_option_ref(reference.lstrip("~") if negates else reference)
    if parsed is None:
        opposite = ", with '~' before it for the opposite" if negates else ""
        raise SpecError(f"{label} '{reference}': write it as 'decision.option'{opposite}.")
    name, option = parsed
    scopes = [scope[:depth] for depth in range(len(scope), -1, -1)] if above else [scope]
    for candidate in scopes:
        if name in tree.nodes[candidate]["decisions"]:
            options = _options(tree, candidate, name)
            if options and option not in options:
                known = listed(options)
                raise SpecError(
                    f"{label} '{reference}', but decision '{name}' has no option '{option}': "
                    f"{suggest(option, list(options), f'use one of {known}.')}"
                )
            return
    known_names = [known for candidate in scopes for known in tree.nodes[candidate]["decisions"]]
    fallback = "correct the name, or declare it here with 'from: ../' where it belongs above."
    raise SpecError(
        f"{label} '{reference}', but there is no decision '{name}': "
        f"{suggest(name, known_names, fallback)}"
    )


def _options(tree: Tree, scope: Scope, name: str) -> Node:
    """Return the options of a decision, following aliases."""
    decision = _target(tree, scope, name) or {}
    options: Node = decision.get("options") or {}
    return options


def _target(tree: Tree, scope: Scope, name: str) -> Node | None:
    """Return the definition of a decision, following aliases; None where they lead nowhere."""
    from astra.helpers import parse_from_path

    decision: Node | None = tree.nodes[scope]["decisions"].get(name)
    while decision is not None and decision.get("from"):
        parsed = parse_from_path(decision["from"])
        if parsed is None or not 0 < parsed[0] <= len(scope) or len(parsed[1]) != 1:
            return None
        scope, name = scope[: len(scope) - parsed[0]], parsed[1][0]
        decision = tree.nodes[scope]["decisions"].get(name)
    return decision


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
    node = _node(universe, scope)
    options = tree.nodes[scope]["decisions"][name].get("options")
    if not options:
        return ""
    chosen = node["decisions"][name]
    known = suggest(chosen, list(options), f"choose one of {listed(options)}.")
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
    options = list(tree.nodes[scope]["decisions"][name].get("options") or {})
    if not universe.file(scope):
        return (
            f"Decision '{name}' in {tree.file(scope)} has no default: give it one, or choose in "
            f"universes/{universe.name}.yaml."
        )
    known = f", one of {listed(options)}" if options else ""
    return (
        f"{_chooser(universe, scope)} makes no choice for decision '{name}'{_of(scope)}: "
        f"add it to its decisions{known}."
    )


def _ignored_choice(
    tree: Tree, universe: Universe, scope: Scope, name: str, settled: Mapping[str, str]
) -> str:
    chosen = _node(universe, scope)["decisions"][name]
    inherited = settled.get(".".join((*scope, name)), chosen)
    if chosen == inherited:
        return ""
    source = tree.nodes[scope]["decisions"][name]["from"]
    return (
        f"{_chooser(universe, scope)} chooses '{chosen}' for decision '{name}'{_of(scope)}, which "
        f"is '{inherited}' by its 'from: {source}': remove the choice."
    )


def _excluded(tree: Tree, scope: Scope, name: str, settled: Mapping[str, str], message: str) -> str:
    options = tree.nodes[scope]["decisions"][name]["options"]
    reason = options[settled[".".join((*scope, name))]].get("excluded_reason")
    because = f" ({' '.join(str(reason).split()).rstrip('.')})" if reason else ""
    others = listed(key for key, option in options.items() if not option["excluded"])
    return f"is excluded{because}: choose {f'one of {others}' if others else 'another option'}."


def _incompatible(
    tree: Tree, scope: Scope, name: str, settled: Mapping[str, str], message: str
) -> str:
    other, _, option = re.findall(r"'([^']*)'", message)[-1].partition(".")
    return (
        f"is incompatible with '{option}' for '{other}': choose another option for one of the two."
    )


def _required(tree: Tree, scope: Scope, name: str, settled: Mapping[str, str], message: str) -> str:
    other, _, option = re.findall(r"'([^']*)'", message)[1].partition(".")
    found = settled.get(".".join((*scope, other)))
    instead = f"not '{found}'" if found is not None else "where it has none"
    return (
        f"requires '{option}' for '{other}', {instead}: choose another option for one of the two."
    )


def _chooser(universe: Universe, scope: Scope) -> str:
    return universe.file(scope) or "The default universe"


def _node(universe: Universe, scope: Scope) -> Node:
    node: Node = universe.data
    for sub in scope:
        node = node["analyses"][sub]
    return node


def _of(scope: Scope) -> str:
    return f" of '{'.'.join(scope)}'" if scope else ""


def _needed(tree: Tree) -> dict[Scope, set[str]]:
    """Return the decisions that each analysis and those below it use."""
    needed: dict[Scope, set[str]] = {scope: set() for scope in tree.nodes}
    for below, node in tree.nodes.items():
        used: set[str] = set()
        for output in node["outputs"]:
            used.update(output["decisions"])
            used.update(item.lstrip("~").partition(".")[0] for item in _conditions(output))
        for decision in node["decisions"].values():
            used.update(item.lstrip("~").partition(".")[0] for item in _conditions(decision))
            if decision.get("from"):
                used.add(decision["from"].rpartition("/")[2])
        for depth in range(len(below) + 1):
            needed[below[:depth]] |= used
    return needed


_CONSTRAINTS = ("incompatible_with", "requires")
_CONSTRAINED = {
    "EXCLUDED_OPTION_SELECTED": _excluded,
    "INCOMPATIBLE_OPTIONS": _incompatible,
    "MISSING_REQUIRED_OPTION": _required,
}
_CHOICES = {
    "UNKNOWN_DECISION": _unknown_decision,
    "UNKNOWN_OPTION": _unknown_option,
    "UNKNOWN_ANALYSIS": _unknown_analysis,
    "MISSING_DECISION": _missing_decision,
}
