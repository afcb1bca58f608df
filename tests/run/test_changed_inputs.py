"""Inputs, scripts and specs that change during a run: what was made of them is not good."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.run.analyses import Analysis, output, succeed
from tests.run.disks import mounted

_WAITS = 'touch "$PLACE/begun"; until [ -e "$PLACE/gate" ]; do sleep 0.02; done; '
_RAW = [{"id": "raw", "type": "data", "source": "raw.txt"}]
_MADE_OF_BAD = "input a changed while it was made (results/baseline/a.txt)"


def _failures(events: list[dict[str, object]]) -> dict[object, object]:
    return {each["id"]: each["reason"] for each in events if each["event"] == "failed"}


def _fail(analysis: Analysis, change: Callable[[], object]) -> str:
    """Begin a run, make a change while its last recipe waits, and return what the run prints."""
    program = analysis.begin()
    analysis.began("begun")
    change()
    analysis.open("gate")
    out, errors = program.communicate(timeout=90)
    assert program.returncode == 1, (out, errors)
    return out.decode()


def test_input_that_a_recipe_alters_is_remade_and_nothing_made_of_it_is_good(
    analysis: Analysis,
) -> None:
    altering = 'sed -i s/good/bad/ {inputs.a}; touch "$PLACE/altered"; echo s > {output}'
    reading = 'until [ -e "$PLACE/altered" ]; do sleep 0.02; done; cat {inputs.a} > {output}'
    spec = [
        output("a", "echo good > {output}"),
        output("s", altering, ("a",)),
        output("c", reading, ("a",)),
        output("d", "cat {inputs.a} > {output}", ("a", "s")),
    ]
    analysis.spec(*spec)
    for _ in range(2):  # whether c begins before s has ended or not
        failures = _failures(analysis.events(check=1))
        assert failures["s"] == _MADE_OF_BAD
        assert "input a " in str(failures["c"])
        states = analysis.states()
        assert (states["a"], states["s"], states["d"]) == ("stale", "stale", "missing")
        assert states["c"] in ("stale", "missing")
        assert analysis.why("s") == f"{_MADE_OF_BAD}; input a is to be remade"
        (analysis.place / "altered").unlink()
    spec[1] = output("s", 'touch "$PLACE/altered"; echo s > {output}', ("a",))
    analysis.spec(*spec)
    assert analysis.summary()["made"] == 4
    assert (analysis.text("c"), analysis.text("d")) == ("good\n", "good\n")
    assert set(analysis.states().values()) == {"ok"}


def test_recipe_does_not_begin_on_an_input_that_is_not_as_it_was_made(analysis: Analysis) -> None:
    analysis.spec(
        output("a", "echo good > {output}"),
        output("b", "echo bad > results/baseline/a.txt; echo b > {output}", ("a",)),
        output("c", "cat {inputs.a} > {output}", ("a", "e")),
        output("e", _WAITS + "echo e > {output}"),
    )
    program = analysis.begin()
    analysis.began("begun")
    program_lines = iter(program.stdout.readline, b"")  # type: ignore[union-attr]
    assert any(line.startswith(b"baseline/b: FAILED") for line in program_lines)
    analysis.open("gate")
    out, _ = program.communicate(timeout=90)
    assert program.returncode == 1
    reason = "input a is not as it was made: results/baseline/a.txt was changed; run again"
    assert f"baseline/c: FAILED, {reason}" in out.decode()
    assert "c" not in analysis.made()
    assert analysis.states()["c"] == "missing"


@pytest.mark.parametrize("inside", ["", "/part"], ids=["file", "directory"])
def test_input_that_is_edited_by_hand_while_it_is_read(analysis: Analysis, inside: str) -> None:
    making = "mkdir {output}; " if inside else ""
    analysis.spec(
        output("a", f"{making}echo good > {{output}}{inside}"),
        output("b", _WAITS + f"cat {{inputs.a}}{inside} > {{output}}", ("a",)),
        output("c", "cat {inputs.b} > {output}", ("b",)),
    )
    a = f"results/baseline/a.txt{inside}"
    out = _fail(analysis, lambda: analysis.write(a, "bad\n"))
    assert f"baseline/b: FAILED, {_MADE_OF_BAD}\n" in out
    assert analysis.text("b") == "bad\n"
    assert analysis.states() == {"a": "stale", "b": "stale", "c": "missing"}
    assert (
        "# not good: input a changed while it was made"
        in (analysis.state("b") / "log.txt").read_text()
    )
    # Not even with the very bytes that it was made of.
    analysis.write(a, "good\n")
    assert analysis.states() == {"a": "ok", "b": "stale", "c": "missing"}
    analysis.run()
    assert (analysis.text("b"), analysis.text("c")) == ("good\n", "good\n")
    assert set(analysis.states().values()) == {"ok"}
    assert analysis.leftovers() == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("raw.txt", "input raw changed while it was made (raw.txt)"),
        ("fit.sh", "fit.sh changed while it was made"),
    ],
)
def test_source_that_is_edited_and_reverted_later(analysis: Analysis, name: str, why: str) -> None:
    texts = {"raw.txt": "1\n", "fit.sh": "cat raw.txt\n"}
    for each, text in texts.items():
        analysis.write(each, text)
    analysis.spec(
        output("b", _WAITS + "bash fit.sh {inputs.raw} > {output}", ("raw",)), inputs=_RAW
    )
    edited = "echo edited\n"
    out = _fail(analysis, lambda: analysis.write(name, edited))
    assert f"baseline/b: FAILED, {why}\n" in out
    assert analysis.text("b") == "edited\n" if name == "fit.sh" else "echo edited\n"
    assert analysis.why("b") == why
    analysis.write(name, texts[name])
    assert analysis.why("b") == why
    analysis.run()
    assert analysis.text("b") == "1\n"
    assert analysis.states() == {"b": "ok"}


def test_inputs_that_are_only_touched_are_read_and_found_the_same(analysis: Analysis) -> None:
    analysis.write("raw.txt", "1\n")
    analysis.spec(
        output("a", "echo good > {output}"),
        output("b", _WAITS + "cat {inputs.raw} {inputs.a} > {output}", ("a", "raw")),
        inputs=_RAW,
    )
    program = analysis.begin()
    analysis.began("begun")
    os.utime(analysis.path("a"))
    os.utime(analysis.root / "raw.txt")
    analysis.open("gate")
    succeed(program)
    assert analysis.states() == {"a": "ok", "b": "ok"}


def test_script_that_is_edited_before_its_recipe_begins_is_read_again(analysis: Analysis) -> None:
    analysis.write("fit.sh", "echo old\n")
    processors = {"cpus": len(os.sched_getaffinity(0))}
    analysis.spec(
        output("a", _WAITS + "echo a > {output}", resources=processors),
        output("b", "bash fit.sh > {output}", resources=processors),
    )
    program = analysis.begin()
    analysis.began("begun")
    analysis.write("fit.sh", "echo new\n")
    analysis.open("gate")
    (out,) = succeed(program)
    assert "lc: baseline/b: fit.sh changed after the run had read it; trying again\n" in out
    assert analysis.text("b") == "new\n"
    assert analysis.made() == ["a", "b"]
    assert analysis.states() == {"a": "ok", "b": "ok"}
    analysis.write("fit.sh", "echo old\n")
    assert analysis.states() == {"a": "ok", "b": "stale"}


def test_input_that_a_run_of_another_spec_has_made_is_not_built_on(analysis: Analysis) -> None:
    def spec(text: str) -> None:
        analysis.spec(
            output("x", f"echo {text} > {{output}}"),
            output("z", _WAITS + "echo z > {output}"),
            output("y", "cat {inputs.x} > {output}", ("x", "z")),
        )

    spec("new")
    program = analysis.begin()
    analysis.began("begun")
    analysis.run("x")
    spec("old")
    analysis.run("x")
    spec("new")
    analysis.open("gate")
    out, _ = program.communicate(timeout=90)
    assert program.returncode == 1
    reason = "its input baseline/x was remade by another run, and is stale for this one"
    assert f"baseline/y: FAILED, {reason} (recipe changed): run again\n" in out.decode()
    assert analysis.states() == {"x": "stale", "y": "missing", "z": "ok"}
    analysis.run()
    assert analysis.text("y") == "new\n"


def test_input_that_another_run_has_remade_of_the_same_spec_is_built_on(analysis: Analysis) -> None:
    analysis.write("fit.sh", "date +%s%N\n")
    analysis.spec(
        output("w", "date +%s%N > {output}"),
        output("x", "cat {inputs.w} > {output}; bash fit.sh >> {output}", ("w",)),
        output("z", _WAITS + "echo z > {output}"),
        output("y", "cat {inputs.x} > {output}", ("x", "z")),
    )
    program = analysis.begin()
    analysis.began("begun")
    analysis.run("x")
    analysis.write("fit.sh", "date +%s%N; echo edited\n")
    analysis.run("-f", "w", "x")
    analysis.open("gate")
    (out,) = succeed(program)
    assert "lc: baseline/y: input x has changed; trying again\n" in out
    assert analysis.text("y") == analysis.text("x")
    assert set(analysis.states().values()) == {"ok"}


def test_recipe_that_rewrites_the_record_of_its_input_is_not_run_without_end(
    analysis: Analysis,
) -> None:
    record = "results/baseline/.lightcone/a/manifest.json"
    analysis.spec(
        output("a", "echo a > {output}"),
        output("b", f"sed -i s/^$// {record}; cat {{inputs.a}} > {{output}}", ("a",)),
    )
    failures = _failures(analysis.events(check=1))
    assert failures == {"b": "input a has changed, 3 times"}
    assert analysis.made() == ["a", "b", "b", "b"]


def test_output_is_made_though_an_old_record_of_failure_cannot_be_removed(
    analysis: Analysis,
) -> None:
    analysis.spec(output("x", "echo x > {output}"))
    busy = analysis.state("x") / "failure.json" / "busy"
    busy.mkdir(parents=True)
    with mounted(busy):
        assert analysis.summary()["made"] == 1
        assert analysis.states() == {"x": "ok"}
