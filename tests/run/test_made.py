"""What a run makes, in which order, and what it leaves alone."""

from __future__ import annotations

import json
import socket

import pytest

from lightcone.project.host import machine_id
from tests.helpers import Sandbox
from tests.run.analyses import Analysis, output

DIAMOND = (
    output("a", "head -n 1 {inputs.raw} > {output}", ("raw",)),
    output("b", "sed s/^/b/ {inputs.a} > {output}", ("a",)),
    output("c", "sed s/^/c/ {inputs.a} > {output}", ("a",)),
    output("d", "cat {inputs.b} {inputs.c} > {output}", ("b", "c")),
)
RAW = [{"id": "raw", "type": "data", "source": "raw.txt"}]
MODE = {"mode": {"default": "x", "options": {"x": {}, "y": {}}}}


@pytest.fixture
def diamond(analysis: Analysis) -> Analysis:
    analysis.write("raw.txt", "1\n2\n")
    analysis.spec(*DIAMOND, inputs=RAW)
    return analysis


def test_outputs_are_made_in_order_and_once(diamond: Analysis) -> None:
    first = diamond.summary()
    assert (first["made"], first["up_to_date"], first["session"]) == (4, 0, "reused")
    made = diamond.made()
    assert (made[0], made[-1], sorted(made)) == ("a", "d", ["a", "b", "c", "d"])
    assert diamond.text("d") == "b1\nc1\n"
    second = diamond.summary()
    assert (second["made"], second["up_to_date"], second["session"]) == (0, 4, "none")
    assert diamond.made() == []


def test_named_output_is_made_with_all_it_needs(diamond: Analysis) -> None:
    diamond.run("b")
    assert diamond.made() == ["a", "b"]
    diamond.run("d", "baseline/b")
    assert diamond.made() == ["c", "d"]


def test_forced_output_is_made_again_and_equal_bytes_stop_the_cascade(diamond: Analysis) -> None:
    diamond.run()
    diamond.made()
    told = diamond.summary("-f", "a")
    assert (told["made"], told["up_to_date"]) == (1, 3)
    assert diamond.made() == ["a"]
    told = diamond.summary("-f", "a", "d")
    assert (told["made"], told["up_to_date"]) == (2, 2)
    assert sorted(diamond.made()) == ["a", "d"]
    diamond.run("-f")
    assert sorted(diamond.made()) == ["a", "b", "c", "d"]


def test_forced_output_that_differs_has_its_dependents_made_too(analysis: Analysis) -> None:
    """Those that were good before; what was stale, or never made, stays with its owner."""
    analysis.spec(
        output("a", 'cat "$PLACE/value" > {output}'),
        output("b", "cat {inputs.a} > {output}", ("a",)),
        output("c", "cat {inputs.b} {inputs.other} > {output}", ("b", "other")),
        output("other", "echo other > {output}"),
        output("edited", "cat {inputs.a} code.txt > {output}", ("a",)),
        output("new", "cat {inputs.a} {inputs.never} > {output}", ("a", "never")),
        output("never", "echo never > {output}"),
    )
    analysis.write("code.txt", "code\n")
    (analysis.place / "value").write_text("1\n")
    analysis.run("c", "edited")
    analysis.write("code.txt", "other code\n")
    analysis.made()
    (analysis.place / "value").write_text("2\n")
    told = analysis.run("-n", "-f", "a").stdout
    assert "baseline/b: would be made: input a is to be remade" in told
    told_of = analysis.summary("-f", "a")
    assert (told_of["made"], told_of["up_to_date"]) == (3, 1)
    assert analysis.made() == ["a", "b", "c"]
    assert analysis.text("c") == "2\nother\n"
    assert analysis.states() == {
        "a": "ok", "b": "ok", "c": "ok", "other": "ok",
        "edited": "stale", "new": "missing", "never": "missing",
    }  # fmt: skip


def test_forced_output_that_was_stale_already_has_its_dependents_made_too(
    analysis: Analysis,
) -> None:
    analysis.spec(
        output("a", "cat code.txt > {output}"),
        output("b", "cat {inputs.a} > {output}", ("a",)),
    )
    analysis.write("code.txt", "1\n")
    analysis.run()
    analysis.write("code.txt", "2\n")
    analysis.made()
    analysis.run("-f", "a")
    assert analysis.made() == ["a", "b"]


def test_changed_input_remakes_what_comes_out_otherwise(diamond: Analysis) -> None:
    diamond.run()
    diamond.made()
    diamond.write("raw.txt", "1\nother\n")
    assert diamond.states() == {"a": "stale", "b": "stale", "c": "stale", "d": "stale"}
    told = diamond.summary()
    assert (told["made"], told["up_to_date"]) == (1, 3)
    assert diamond.made() == ["a"]
    assert set(diamond.states().values()) == {"ok"}
    diamond.write("raw.txt", "9\n")
    diamond.run()
    assert sorted(diamond.made()) == ["a", "b", "c", "d"]
    assert diamond.text("d") == "b9\nc9\n"


def test_result_that_was_changed_by_hand_is_made_again(diamond: Analysis) -> None:
    diamond.run()
    diamond.made()
    diamond.path("b").write_text("tampered\n")
    diamond.run()
    assert diamond.made() == ["b"]
    assert diamond.text("b") == "b1\n"


def test_changed_decision_remakes_what_depends_on_it(analysis: Analysis) -> None:
    analysis.spec(
        output("plain", "echo plain > {output}"),
        output("chosen", "echo {decisions.mode} > {output}", decisions=["mode"]),
        output("after", "cat {inputs.chosen} {inputs.plain} > {output}", ("chosen", "plain")),
        decisions=MODE,
        universes={"one": {"mode": "x"}, "two": {"mode": "y"}},
    )
    analysis.run("-u", "one")
    assert sorted(analysis.made()) == ["after", "chosen", "plain"]
    assert not (analysis.root / "results" / "two").exists()
    analysis.run()
    analysis.made()
    analysis.universe("two", {"mode": "x"})
    told = analysis.events()
    assert sorted(analysis.made()) == ["after", "chosen"]
    assert {each["universe"] for each in told if each["event"] == "made"} == {"two"}
    assert analysis.text("after", "two") == "x\nplain\n"


def test_output_of_one_universe_and_of_all(analysis: Analysis) -> None:
    analysis.spec(
        output("chosen", "echo {decisions.mode} > {output}", decisions=["mode"]),
        decisions=MODE,
        universes={"one": {"mode": "x"}, "two": {"mode": "y"}},
    )
    analysis.run("two/chosen")
    assert analysis.states() == {"one/chosen": "missing", "two/chosen": "ok"}
    analysis.run("chosen", "-u", "one")
    assert analysis.states() == {"one/chosen": "ok", "two/chosen": "ok"}
    analysis.made()
    analysis.run("-f", "chosen")
    assert analysis.made() == ["chosen", "chosen"]
    analysis.run("-f", "one/chosen")
    assert analysis.made() == ["chosen"]


def test_condition_decides_whether_there_is_an_output(analysis: Analysis) -> None:
    analysis.spec(
        output("always", "echo 1 > {output}"),
        output("sometimes", "echo 2 > {output}", when="mode.y"),
        decisions=MODE,
        universes={"one": {"mode": "x"}, "two": {"mode": "y"}},
    )
    analysis.run()
    assert sorted(analysis.made()) == ["always", "always", "sometimes"]
    assert "one/sometimes" not in analysis.states()
    assert analysis.text("sometimes", "two") == "2\n"


def test_outputs_of_a_part(analysis: Analysis) -> None:
    analysis.spec(
        {"id": "half", "type": "data", "from": "part.half"},
        output("whole", "cat {inputs.half} > {output}", ("half",)),
        analyses={"part": {"outputs": [output("half", "echo half > {output}")]}},
    )
    analysis.run("part.half")
    assert analysis.made() == ["half"]
    analysis.run()
    assert analysis.made() == ["whole"]
    assert analysis.text("whole") == "half\n"


def test_output_that_is_a_directory_is_there_and_empty_when_its_recipe_begins(
    analysis: Analysis,
) -> None:
    analysis.spec(
        output("tree", "n=$(ls -A {output}); echo [$n] > {output}/n", suffix=""),
        output("after", "cat {inputs.tree}/n > {output}/copy", ("tree",), suffix=""),
    )
    for _ in range(2):
        analysis.run("-f")
        assert analysis.path("tree", suffix="").joinpath("n").read_text() == "[]\n"
        assert analysis.path("after", suffix="").joinpath("copy").read_text() == "[]\n"
    assert analysis.summary()["up_to_date"] == 2


def test_recipe_may_make_a_directory_where_a_file_was_meant(analysis: Analysis) -> None:
    analysis.spec(output("tree", "mkdir {output}; echo 1 > {output}/one"))
    analysis.run()
    assert (analysis.path("tree") / "one").read_text() == "1\n"
    assert analysis.states() == {"tree": "ok"}


@pytest.mark.parametrize("layout", ["file", "directory"])
def test_recipe_without_placeholders_writes_by_name(analysis: Analysis, layout: str) -> None:
    analysis.write("lightcone.toml", f'[results]\nlayout = "{layout}"\n')
    there = "results/baseline/x.txt" if layout == "file" else "results/baseline/x/x.txt"
    analysis.spec(output("x", f"echo 1 > {there}"))
    analysis.run()
    analysis.run("-f")
    assert (analysis.root / there).read_text() == "1\n"
    assert analysis.states() == {"x": "ok"}


def test_recipe_sees_what_any_shell_command_would(analysis: Analysis) -> None:
    analysis.spec(
        output("quotes", "echo \"it's {{braces}}\" '$HOME' | tee {output} >&2"),
        output("pipe", "false | cat > {output}"),
    )
    analysis.run("quotes")
    assert analysis.text("quotes") == "it's {braces} $HOME\n"
    assert "exit code 1" in analysis.run("pipe", check=1).stdout


def test_nothing_to_do_touches_no_session_and_imports_no_engine(alone: Analysis) -> None:
    alone.write("raw.txt", "1\n")
    alone.spec(*DIAMOND, inputs=RAW)
    assert alone.summary()["session"] == "spawned"
    alone.box.lc("session", "stop")
    assert alone.summary()["session"] == "none"
    assert alone.box.processes() == []
    code = """if True:
        import sys
        from lightcone.cli.main import main
        sys.argv[1:] = ["run"]
        try:
            main()
        except SystemExit as error:
            assert error.code == 0, error.code
        engine = {"dask", "distributed", "tornado", "libtmux", "asyncio", "rich"}
        print(sorted(engine & set(sys.modules)))
    """
    assert alone.box.python("-c", code).stdout.splitlines()[-1] == "[]"
    assert alone.box.status()["state"] == "dead"


@pytest.mark.parametrize("committed", [True, False], ids=["made", "half made"])
def test_what_a_killed_run_left_is_put_right_without_a_session(
    sandbox: Sandbox, committed: bool
) -> None:
    project = Analysis(sandbox)
    project.spec(output("x", "echo 1 > {output}"))
    project.run()
    sandbox.lc("session", "stop")
    state, path = project.state("x"), project.path("x")
    (state / "previous").mkdir()
    manifest = json.loads((state / "manifest.json").read_bytes())
    attempt = manifest["made"]["attempt"] if committed else "another"
    journal = {"attempt": attempt, "had_output": True}
    journal |= {"machine": machine_id(), "host": socket.gethostname()}
    (state / "journal.json").write_text(json.dumps(journal | {"lock": "gone", "boot_id": "0"}))
    if not committed:
        (state / "manifest.json").rename(state / "previous" / "manifest.json")
        path.rename(state / "previous" / "output")
        path.write_text("half")
    project.run("-n")
    assert (state / "journal.json").exists()
    assert project.summary()["session"] == "none"
    assert project.leftovers() == []
    assert project.text("x") == "1\n"
    assert sandbox.processes() == []


def test_session_that_ended_by_itself_is_told_of_and_replaced(alone: Analysis) -> None:
    alone.spec(output("x", "echo 1 > {output}"))
    alone.run(env={"LIGHTCONE_IDLE_TIMEOUT": "1s"})
    alone.box.lc("session", "wait", "--for", "end", "--timeout", "60")
    again = alone.run("-f")
    assert "the last session ended" in again.stdout
    assert "idle for 1.0 s" in again.stdout
