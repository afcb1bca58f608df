"""A plan says what a slow and obvious reckoning says, whatever happens to a project."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcone.project.settings import Settings
from lightcone.spec.output import Key
from lightcone.spec.outputs import load_outputs
from lightcone.spec.selection import select
from lightcone.state.plan import Assessment, State, assess, good_dependents, plan
from tests.projects import Project

UNIVERSES = ("u", "v")
OPTIONS = ("a", "b")
SCRIPTS = ("s0.sh", "s1.sh")
LIBRARY = "lib.sh"  # which the first of these sources
RAWS = ("r0", "r1")


@dataclass
class Shape:
    """One output of the project under test.

    ``blunt`` outputs have the same bytes whatever they are made from.
    """

    inputs: list[str]
    scripts: list[str]
    decides: bool
    blunt: bool
    salt: int = 0


@dataclass
class Oracle:
    """The state of everything, kept in plain values and compared in full."""

    shapes: dict[str, Shape]
    scripts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*SCRIPTS, LIBRARY), 0))
    raws: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RAWS, 0))
    chosen: dict[str, str] = field(default_factory=lambda: dict.fromkeys(UNIVERSES, "a"))
    files: dict[Key, str] = field(default_factory=dict)
    made_from: dict[Key, tuple[object, str]] = field(default_factory=dict)

    def spec(self) -> str:
        lines = ["inputs: [" + ", ".join(f"{{id: {r}, source: {r}.csv}}" for r in RAWS) + "]"]
        lines.append("decisions: {d: {options: {a: {}, b: {}}}}")
        lines.append("outputs:")
        for name, shape in self.shapes.items():
            command = " ".join(["sh", *shape.scripts, str(shape.salt), "{inputs}"])
            if shape.decides:
                command += " {decisions.d}"
            lines.append(f"- id: {name}")
            lines.append("  format: csv")
            lines.append(f"  inputs: [{', '.join(shape.inputs)}]")
            lines.append(f"  decisions: [{'d' if shape.decides else ''}]")
            lines.append(f"  recipe: {{command: '{command} > {{output}}'}}")
        return "\n".join(lines) + "\n"

    def origin(self, key: Key) -> object:
        """Everything that determines an output, as plain values."""
        universe, name = key
        shape = self.shapes[name]
        return (
            shape.salt,
            [(script, self.scripts[script]) for script in shape.scripts],
            self.scripts[LIBRARY] if SCRIPTS[0] in shape.scripts else None,
            self.chosen[universe] if shape.decides else None,
            [
                (each, self.raws[each] if each in RAWS else self.files.get((universe, each)))
                for each in shape.inputs
            ],
        )

    def content(self, key: Key) -> str:
        """What the recipe of an output writes."""
        text = "blunt" if self.shapes[key[1]].blunt else repr(self.origin(key))
        return f"{key[1]} {hashlib.sha256(text.encode()).hexdigest()[:12]}\n"

    def is_good(self, key: Key) -> bool:
        universe, name = key
        if key not in self.files or key not in self.made_from:
            return False
        if not all(self.is_good((universe, above)) for above in self.above(name)):
            return False
        return self.made_from[key] == (self.origin(key), self.files[key])

    def above(self, name: str) -> list[str]:
        """The outputs that an output needs."""
        return [each for each in self.shapes[name].inputs if each not in RAWS]

    def keys(self) -> list[Key]:
        return [(universe, name) for universe in UNIVERSES for name in self.shapes]


@st.composite
def projects(draw: st.DrawFn) -> Oracle:
    shapes: dict[str, Shape] = {}
    for number in range(draw(st.integers(1, 5))):
        shapes[f"o{number}"] = Shape(
            inputs=draw(st.lists(st.sampled_from([*RAWS, *shapes]), unique=True, max_size=3)),
            scripts=draw(st.lists(st.sampled_from(SCRIPTS), unique=True, max_size=2)),
            decides=draw(st.booleans()),
            blunt=draw(st.booleans()),
        )
    # Declared in another order than they depend on each other.
    names = draw(st.permutations(list(shapes)))
    return Oracle({name: shapes[name] for name in names})


class Both:
    """A project of files and the oracle, to which the same things happen."""

    def __init__(self, project: Project, oracle: Oracle) -> None:
        self.project = project
        self.oracle = oracle
        project.spec(oracle.spec())
        for script in oracle.scripts:
            self.edit(script, 0)
        for raw in RAWS:
            project.write(f"{raw}.csv", "0")
        for universe in UNIVERSES:
            self.choose(universe, "a")

    def path(self, key: Key) -> str:
        return f"results/{key[0]}/{key[1]}.csv"

    def choose(self, universe: str, option: str) -> None:
        self.oracle.chosen[universe] = option
        self.project.write(f"universes/{universe}.yaml", f"decisions: {{d: {option}}}")

    def edit(self, name: str, value: int) -> None:
        if name in self.oracle.scripts:
            self.oracle.scripts[name] = value
            sourced = f". ./{LIBRARY}\n" if name == SCRIPTS[0] else ""
            self.project.write(name, f"{sourced}# {value}\n")
        else:
            self.oracle.raws[name] = value
            self.project.write(f"{name}.csv", str(value))

    def rewrite(self, name: str, salt: int) -> None:
        self.oracle.shapes[name].salt = salt
        self.project.spec(self.oracle.spec())

    def forge(self, key: Key, text: str) -> None:
        self.oracle.files[key] = text
        self.project.write(self.path(key), text)

    def touch(self, key: Key) -> None:
        path = self.project.root / self.path(key)
        if path.exists():
            self.project.age(path)

    def touch_source(self, name: str) -> None:
        self.project.age(self.project.root / (f"{name}.csv" if name in RAWS else name))

    def delete(self, key: Key) -> None:
        self.oracle.files.pop(key, None)
        (self.project.root / self.path(key)).unlink(missing_ok=True)

    def make(self, key: Key) -> None:
        """Make one output, if its inputs are good."""
        assessment = self.plan()[key]
        if assessment.provenance is None:
            return
        content = self.oracle.content(key)
        self.oracle.files[key] = content
        self.oracle.made_from[key] = (self.oracle.origin(key), content)
        self.project.write(self.path(key), content)
        self.project.record(assessment.output, assessment.provenance)

    def plan(self, force: frozenset[Key] = frozenset()) -> dict[Key, Assessment]:
        outputs = load_outputs(self.project.root, Settings())
        return plan(outputs, force)

    def check(self) -> None:
        found = self.plan()
        assert set(found) == set(self.oracle.keys())
        for key, assessment in found.items():
            good = self.oracle.is_good(key)
            assert (assessment.state is State.OK) == good, (key, assessment.why)
            assert (assessment.why == "") == good
            there = key in self.oracle.files and key in self.oracle.made_from
            if not good:
                assert assessment.state is (State.STALE if there else State.MISSING)
            above = [(key[0], name) for name in self.oracle.above(key[1])]
            ready = all(self.oracle.is_good(each) for each in above)
            assert (assessment.provenance is not None) == ready
            versions = {
                name: record.data.version
                if found[universe, name].state is State.OK
                and (record := found[universe, name].manifest) is not None
                else None
                for universe, name in above
            }
            assert assess(assessment.output, versions) == assessment


@settings(max_examples=40)
@given(oracle=projects(), data=st.data())
def test_against_the_oracle(oracle: Oracle, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        both = Both(Project(Path(directory)), oracle)
        keys = st.sampled_from(oracle.keys())
        operations = st.one_of(
            st.just((Both.check,)),
            st.tuples(st.just(Both.make), keys),
            st.tuples(st.just(Both.make), keys),
            st.tuples(st.just(Both.forge), keys, st.sampled_from(["forged\n", "x"])),
            st.tuples(st.just(Both.touch), keys),
            st.tuples(st.just(Both.touch_source), st.sampled_from([*SCRIPTS, LIBRARY, *RAWS])),
            st.tuples(st.just(Both.delete), keys),
            st.tuples(
                st.just(Both.edit),
                st.sampled_from([*SCRIPTS, LIBRARY, *RAWS]),
                st.integers(0, 2),
            ),
            st.tuples(st.just(Both.choose), st.sampled_from(UNIVERSES), st.sampled_from(OPTIONS)),
            st.tuples(
                st.just(Both.rewrite), st.sampled_from(sorted(oracle.shapes)), st.integers(0, 2)
            ),
        )
        both.check()
        if data.draw(st.booleans()):
            for output in load_outputs(both.project.root, Settings()):
                both.make(output.key)
            assert all(each.state is State.OK for each in both.plan().values())
        for operation, *arguments in data.draw(st.lists(operations, max_size=12)):
            operation(both, *arguments)
        both.check()
        for output in load_outputs(both.project.root, Settings()):
            if not oracle.is_good(output.key):
                both.make(output.key)
        assert all(each.state is State.OK for each in both.plan().values())


@settings(max_examples=15)
@given(oracle=projects(), data=st.data())
def test_forced_and_selected(oracle: Oracle, data: st.DataObject) -> None:
    """What is forced is not good, nor is what needs it; a selection holds all that is needed."""
    with tempfile.TemporaryDirectory() as directory:
        both = Both(Project(Path(directory)), oracle)
        outputs = load_outputs(both.project.root, Settings())
        for output in outputs:
            both.make(output.key)
        forced = frozenset(data.draw(st.lists(st.sampled_from(oracle.keys()), max_size=3)))

        def depends(key: Key) -> bool:
            return key in forced or any(depends((key[0], name)) for name in oracle.above(key[1]))

        found = both.plan(forced)
        remade = {key for key, assessment in found.items() if assessment.state is not State.OK}
        assert remade == set(filter(depends, oracle.keys()))
        assert good_dependents(outputs, forced) == remade - forced
        names = ["/".join(key) for key in sorted(forced)]
        selected = [each.key for each in select(outputs, names)]

        def needed(key: Key) -> set[Key]:
            return {key}.union(*[needed((key[0], name)) for name in oracle.above(key[1])])

        assert set(selected) == set().union(*[needed(key) for key in forced])
        assert selected == [each.key for each in outputs if each.key in set(selected)]
        seen: set[Key] = set()
        for output in outputs:
            seen.add(output.key)
            assert all(
                (output.universe, each.producer) in seen
                for each in output.inputs
                if each.producer is not None
            )


def test_nothing_to_plan() -> None:
    assert plan([]) == {}
    assert good_dependents([], {("u", "a")}) == set()


LINKED = """\
inputs: [{id: raw, source: SOURCE}]
outputs:
- {id: clean, inputs: [raw], recipe: {command: "ln -sfn ../../../data/raw {output}/in"}}
- {id: plot, inputs: [clean], recipe: {command: "cat {inputs.clean}/in/*.csv > {output}/t"}}
"""


@pytest.mark.parametrize("source", ["data/raw", "data/r*"])
def test_links_in_inputs_and_results_count_by_what_they_lead_to(
    project: Project, source: str
) -> None:
    """A recipe that stages its input makes a result of it, and so does the next one."""
    big = project.write("../big/2024/x.csv", "1\n")
    shared = project.write("../shared.csv", "2\n")
    (project.root / "data/raw").mkdir(parents=True)
    (project.root / "data/raw/shared.csv").symlink_to(shared)
    project.spec(LINKED.replace("SOURCE", f'"{source}"'))
    assert project.make() == ["baseline/clean", "baseline/plot"]
    assert set(project.states().values()) == {"ok"}
    project.age(shared)
    assert set(project.states().values()) == {"ok"}
    shared.write_text("3\n")
    name = "shared.csv" if source == "data/raw" else "data/raw/shared.csv"
    assert project.states()["baseline/clean"] == (
        "stale (results/baseline/clean has a changed file in/shared.csv; "
        f"input raw changed ({source}: {name} changed))"
    )
    # What was made of it is the same text as before: the bytes behind it are not.
    assert project.make() == ["baseline/clean", "baseline/plot"]
    assert (project.root / "results/baseline/plot/t").read_text() == "3\n"
    (project.root / "data/raw/years").symlink_to(big.parent.parent)
    assert "years/2024/x.csv is new" in project.why("baseline/clean")
    shutil.rmtree(project.root / "results/baseline")
    project.make()
    big.write_text("4\n")
    assert "years/2024/x.csv changed" in project.why("baseline/clean")
