"""``lc status``: every output in every universe, and why it is not ok."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox
from tests.run.analyses import Analysis, interrupt, output

_WAITS = 'touch "$PLACE/begun"; until [ -e "$PLACE/gate" ]; do sleep 0.05; done; echo 1 > {output}'


@pytest.fixture
def analysis(shared: Sandbox) -> Iterator[Analysis]:
    """An analysis on the session of the module's tests."""
    project = Analysis(shared)
    yield project
    project.close()


def test_every_state_for_real(analysis: Analysis) -> None:
    analysis.spec(
        output("good", "echo 1 > {output}"),
        output("old", "echo 1 > {output}"),
        output("bad", "exit ${{CODE-4}}"),
        output("ended", "echo 1 > {output}; " + _WAITS),
        output("never", "echo 1 > {output}"),
        output("going", _WAITS),
    )
    analysis.run("good", "old")
    analysis.run("bad", check=1)
    run = analysis.begin("ended")
    analysis.began("begun")
    interrupt(run)
    assert run.wait(timeout=60) == 130
    (analysis.place / "begun").unlink()
    spec = (analysis.root / "astra.yaml").read_text()
    (analysis.root / "astra.yaml").write_text(spec.replace("echo old", "echo old again"))
    run = analysis.begin("going")
    analysis.began("begun")
    told = json.loads(analysis.box.lc("status", "--json").stdout)
    assert list(told) == ["outputs", "warnings"]
    assert [each["state"] for each in told["outputs"]] == [
        "ok", "stale", "failed", "interrupted", "missing", "running",
    ]  # fmt: skip
    for each in told["outputs"]:
        assert list(each) == ["id", "universe", "state", "why", "path", "partial", "resumable"]
        assert each["universe"] == "baseline"
        assert each["path"] == f"results/baseline/{each['id']}.txt"
        assert bool(each["why"]) == (each["state"] != "ok")
    whys = {each["id"]: each["why"] for each in told["outputs"]}
    assert whys["old"] == "recipe changed"
    assert whys["bad"] == "recipe failed with exit code 4"
    assert whys["ended"] == "it was interrupted"
    assert whys["never"] == "never made"
    assert re.match(rf"by lc run, pid {run.pid} on \S+ since ", whys["going"])
    shown = analysis.box.lc("status").stdout.splitlines()
    assert shown[0] == "ok          baseline/good"
    assert shown[2] == "failed      baseline/bad    recipe failed with exit code 4"
    assert shown[-1] == "1 of 6 ok; run 'lc run' to make the rest"
    analysis.open("gate")
    assert run.wait(timeout=60) == 0
    assert analysis.states()["going"] == "ok"


def test_check_tells_whether_every_output_is_ok(analysis: Analysis) -> None:
    analysis.spec(output("a", "echo 1 > {output}"), output("b", "echo 1 > {output}"))
    analysis.run("a")
    for options in ([], ["--json"]):
        assert analysis.box.lc("status", "--check", *options, check=1).stderr == ""
        analysis.box.lc("status", *options)
    analysis.run()
    assert analysis.box.lc("status", "--check").stdout.endswith("2 of 2 ok\n")


def test_one_universe_and_all_of_them(analysis: Analysis) -> None:
    analysis.spec(
        output("x", "echo {decisions.mode} > {output}", decisions=["mode"]),
        decisions={"mode": {"default": "a", "options": {"a": {}, "b": {}}}},
        universes={"one": {"mode": "a"}, "two": {"mode": "b"}},
    )
    analysis.run("-u", "one")
    assert analysis.states() == {"one/x": "ok", "two/x": "missing"}
    analysis.box.lc("status", "-u", "one", "--check")
    told = analysis.box.lc("status", "-u", "thre", check=2)
    assert told.stderr == "lc: There is no universe 'thre': there are one, two.\n"


def test_project_without_a_recipe(sandbox: Sandbox) -> None:
    (sandbox.project / "astra.yaml").write_text("version: '0.0.14'\nname: x\noutputs: []\n")
    assert sandbox.lc("status", "--check").stdout == "No output has a recipe.\n"
    assert json.loads(sandbox.lc("status", "--json").stdout) == {"outputs": [], "warnings": []}


def test_parts_of_the_spec_that_are_ignored_are_warnings(sandbox: Sandbox) -> None:
    path = sandbox.project / "astra.yaml"
    recipe = "recipe: {command: 'echo > {output}'}"
    path.write_text(
        f"outputs: [{{id: a, format: txt, target: b, {recipe}}}]\nmultiverses: []\nauthors: [me]\n"
    )
    expected = [
        "astra.yaml has an unknown key 'multiverses', which is ignored: remove it, or correct its "
        "name.",
        "Output 'a' in astra.yaml has an unknown key 'target', which is ignored: remove it, or "
        "correct its name.",
    ]
    lines = [f"lc: warning: {text}" for text in expected]
    shown = sandbox.lc("status")
    assert shown.stderr.splitlines() == lines
    assert "warning" not in shown.stdout
    assert json.loads(sandbox.lc("status", "--json").stdout)["warnings"] == expected
    run = sandbox.lc("run", "-n", "--json")
    assert run.stderr.splitlines() == lines
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["event"] for each in events] == ["warning", "warning", "would_make", "summary"]
    assert [each["text"] for each in events[:2]] == expected
    path.write_text(f"outputs: [{{id: a, format: txt, input: [b], {recipe}}}]\n")
    for call in (("status", "--check"), ("run", "-n"), ("run", "--json")):
        refused = sandbox.lc(*call, check=2)
        assert refused.stdout == ""
        assert refused.stderr == (
            "lc: Output 'a' in astra.yaml has an unknown key 'input': did you mean 'inputs'?\n"
        )


def test_it_changes_nothing_and_needs_neither_a_session_nor_its_engine(sandbox: Sandbox) -> None:
    before = sorted(sandbox.base.rglob("*"))
    code = """if True:
        import sys
        from lightcone.cli.main import main
        sys.argv[1:] = ["status"]
        try:
            main()
        except SystemExit as error:
            assert error.code == 0, error.code
        print(sorted({"dask", "distributed", "tornado", "libtmux", "rich"} & set(sys.modules)))
    """
    assert sandbox.python("-c", code).stdout.splitlines() == [
        "missing     baseline/greeting  never made",
        "0 of 1 ok; run 'lc run' to make the rest",
        "[]",
    ]
    assert sorted(sandbox.base.rglob("*")) == before
