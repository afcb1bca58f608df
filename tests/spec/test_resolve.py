"""What a spec means in each universe, against a slow and obvious reckoning."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.projects import Project

# The root's decision, one of ``s`` and one that ``s`` has where that is "a".
CHOICES = [dict(zip("def", options, strict=True)) for options in itertools.product("ab", repeat=3)]


@dataclass
class Declared:
    """One output of the spec under test: with a recipe, or a re-export of ``of``."""

    scope: str
    name: str
    when: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    of: str = ""

    @property
    def id(self) -> str:
        return inside(self.scope, self.name)


def inside(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


VISIBLE = {"": "d", "s": "def", "s.t": "def", "v": ""}
# What may be named as an input besides what the scope and those below it make.
GIVEN = {"": ["raw"], "s": ["raw", "beside"], "s.t": ["raw", "far"], "v": ["raw"]}
# Where those lead: inputs from outside, and the outputs of other analyses.
MEANT = {("s", "beside"): "v.o0", ("s.t", "far"): "v.o0"}


@st.composite
def specs(draw: st.DrawFn) -> list[Declared]:
    found: list[Declared] = []
    for scope in ("v", "s.t", "s", ""):
        here: list[str] = []
        for number in range(draw(st.integers(1, 3))):
            below = [
                each.id.removeprefix(f"{scope}.") if scope else each.id
                for each in found
                if each.id.startswith(f"{scope}.") or not scope
            ]
            conditions = [
                f"{sign}{d}.{o}" for sign in ("", "~") for d in VISIBLE[scope] for o in "ab"
            ]
            when = draw(st.lists(st.sampled_from(conditions), max_size=2)) if conditions else []
            inputs = draw(
                st.lists(st.sampled_from([*GIVEN[scope], *here, *below]), unique=True, max_size=4)
            )
            found.append(Declared(scope, f"o{number}", tuple(when), tuple(inputs)))
            here.append(f"o{number}")
        deeper = [each for each in found if scope in ("", "s") and each.scope != scope]
        deeper = [each for each in deeper if each.id.startswith(f"{scope}.") or not scope]
        has_alias = draw(st.booleans())
        if deeper and has_alias:
            of = draw(st.sampled_from(deeper))
            local = of.id.removeprefix(f"{scope}.") if scope else of.id
            found.append(Declared(scope, "alias", of=local))
            found.append(Declared(scope, "by_alias", inputs=("alias",)))
    return found


def text(declared: list[Declared]) -> str:
    lines: list[str] = []

    def outputs(scope: str, margin: str) -> None:
        lines.append(f"{margin}outputs:")
        for each in declared:
            if each.scope != scope:
                continue
            if each.of:
                lines.append(f"{margin}- {{id: {each.name}, from: {each.of}}}")
                continue
            decisions = ", ".join(VISIBLE[scope])
            lines.append(f"{margin}- id: {each.name}")
            lines.append(f"{margin}  inputs: [{', '.join(each.inputs)}]")
            lines.append(f"{margin}  decisions: [{decisions}]")
            if each.when:
                lines.append(f"{margin}  when: [{', '.join(map(repr, each.when))}]")
            lines.append(f"{margin}  recipe: {{command: 'true > {{output}}'}}")

    options = "options: {a: {}, b: {}}"
    lines.append("inputs: [{id: raw, source: raw.csv}]")
    lines.append(f"decisions: {{d: {{{options}}}}}")
    outputs("", "")
    lines.append("analyses:")
    lines.append("  s:")
    lines.append("    inputs: [{id: raw, from: ../raw}, {id: beside, from: ../v.o0}]")
    lines.append("    decisions:")
    lines.append("      d: {from: ../d}")
    lines.append(f"      e: {{{options}}}")
    lines.append(f"      f: {{when: e.a, default: a, {options}}}")
    outputs("s", "    ")
    lines.append("    analyses:")
    lines.append("      t:")
    lines.append("        inputs: [{id: raw, from: ../raw}, {id: far, from: ../../v.o0}]")
    lines.append("        decisions: {d: {from: ../../d}, e: {from: ../e}, f: {from: ../f}}")
    outputs("s.t", "        ")
    lines.append("  v:")
    lines.append("    inputs: [{id: raw, from: ../raw}]")
    outputs("v", "    ")
    return "\n".join(lines) + "\n"


class Oracle:
    """One universe of a spec, every question answered from the beginning."""

    def __init__(self, declared: list[Declared], chosen: dict[str, str]) -> None:
        self.declared = {each.id: each for each in declared}
        self.settled = dict(chosen)
        if chosen["e"] != "a":
            del self.settled["f"]

    def is_there(self, name: str) -> bool:
        each = self.declared[name]
        if each.of:
            return self.is_there(inside(each.scope, each.of))
        return all(self.holds(condition) for condition in each.when)

    def holds(self, condition: str) -> bool:
        decision, _, option = condition.lstrip("~").partition(".")
        return (self.settled.get(decision) == option) != condition.startswith("~")

    def end(self, name: str) -> str:
        each = self.declared[name]
        return self.end(inside(each.scope, each.of)) if each.of else name

    def inputs(self, name: str) -> list[tuple[str, str | None]]:
        """Each input that there is, with what makes it."""
        each = self.declared[name]
        found: list[tuple[str, str | None]] = []
        for given_ in each.inputs:
            target = MEANT.get((each.scope, given_)) or inside(each.scope, given_)
            if given_ == "raw":
                found.append((given_, None))
            elif self.is_there(target):
                found.append((given_, self.end(target)))
        return found

    def outputs(self) -> dict[str, object]:
        there = [name for name in self.declared if self.is_there(name)]
        return {
            name: (
                self.inputs(name),
                [
                    (decision, self.settled[decision])
                    for decision in VISIBLE[self.declared[name].scope]
                    if decision in self.settled
                ],
                sorted(other for other in there if other != name and self.end(other) == name),
            )
            for name in there
            if not self.declared[name].of
        }


@settings(max_examples=40)
@given(declared=specs(), chosen=st.lists(st.sampled_from(CHOICES), min_size=1, max_size=4))
def test_against_the_oracle(declared: list[Declared], chosen: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        project = Project(Path(directory)).spec(
            text(declared),
            {
                f"u{number}": f"decisions: {{d: {each['d']}}}\n"
                f"analyses: {{s: {{decisions: {{e: {each['e']}, f: {each['f']}}}}}}}\n"
                for number, each in enumerate(chosen)
            },
        )
        together = project.outputs()
        for number, each in enumerate(chosen):
            alone = project.outputs(f"u{number}")
            assert [made for made in together if made.universe == f"u{number}"] == alone
            assert {
                made.id: (
                    [(given_.id, given_.producer) for given_ in made.inputs],
                    list(made.decisions),
                    sorted(made.aliases),
                )
                for made in alone
            } == Oracle(declared, each).outputs()
            before: set[str] = set()
            for made in alone:
                assert {given_.producer for given_ in made.inputs} <= {None, *before}
                before.add(made.id)
