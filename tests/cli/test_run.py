"""``lc run``: every mistake is one sentence and its exit code, and nothing is lost by it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Sandbox
from tests.run.analyses import Analysis, output

RAW = "inputs: [{id: raw, type: data, source: raw.txt}]\n"
ONE = "outputs: [{id: x, type: data, format: txt, recipe: {command: 'echo 1 > {output}'}}]\n"
CUT = "decisions: {cut: {default: a, options: {a: {}, b: {}}}}\n"
CYCLE = """\
outputs:
  - {id: a, type: data, format: txt, inputs: [b], recipe: {command: 'cat {inputs.b} > {output}'}}
  - {id: b, type: data, format: txt, inputs: [a], recipe: {command: 'cat {inputs.a} > {output}'}}
"""


def _refused(sandbox: Sandbox, *arguments: str, code: int = 2, **options: Any) -> str:
    """The one sentence of an ``lc run`` that does not even begin."""
    result = sandbox.lc("run", *arguments, check=code, **options)
    assert result.stdout == ""
    assert result.stderr.startswith("lc: ")
    sentence = result.stderr.removeprefix("lc: ")
    assert sentence.endswith("\n") and sentence.count("\n") == 1, sentence
    assert sandbox.processes() == []
    return sentence.rstrip("\n")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "astra.yaml is empty"),
        ("outputs: [{id: x\n", "astra.yaml is not valid YAML"),
        ("- a\n- b\n", "astra.yaml must be a mapping"),
        (CYCLE, "a → b → a"),
        (ONE.replace("{output}", "{ouput}"), "ouput"),
        (ONE.replace("echo 1", "echo {decisions.cut}"), "cut"),
        (ONE.replace("echo 1", "echo {inputs.raw}"), "raw"),
        (ONE.replace("recipe:", "decisions: [cut], recipe:"), "cut"),
        (ONE.replace("recipe:", "when: cut.a, recipe:"), "cut"),
        (ONE.replace("recipe:", "inputs: [raw], recipe:"), "raw"),
        (ONE.replace("'}}", "', resources: {cpus: many}}}"), "many"),
        (ONE.replace("'}}", "', resources: {time_limit: soon}}}"), "soon"),
    ],
)
def test_spec_that_cannot_be_used(sandbox: Sandbox, spec: str, words: str) -> None:
    (sandbox.project / "astra.yaml").write_text(spec)
    assert words in _refused(sandbox)
    for options in ((), ("--json",)):
        result = sandbox.lc("status", *options, check=2)
        assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert not (sandbox.project / "results").exists()


@pytest.mark.parametrize(
    ("universe", "words"),
    [
        ("", "u.yaml"),
        ("{", "u.yaml is not valid YAML"),
        ("id: u\ndecisions: {cut: c}\n", "'c'"),
        ("id: u\ndecisions: {cuts: a}\n", "did you mean 'cut'?"),
    ],
)
def test_universe_that_cannot_be_used(sandbox: Sandbox, universe: str, words: str) -> None:
    used = ONE.replace("recipe:", "decisions: [cut], recipe:")
    (sandbox.project / "astra.yaml").write_text(CUT + used)
    (sandbox.project / "universes").mkdir()
    (sandbox.project / "universes" / "u.yaml").write_text(universe)
    assert words in _refused(sandbox)


def test_no_project_here(sandbox: Sandbox) -> None:
    assert _refused(sandbox, cwd=sandbox.base) == (
        f"There is no astra.yaml in {sandbox.base} or above it: go to the project's directory."
    )


def test_working_directory_that_is_gone(sandbox: Sandbox) -> None:
    code = """if True:
        import os, sys
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
        os.execv(sys.executable, [sys.executable, "-m", "lightcone", "run"])
    """
    result = sandbox.python("-c", code, check=2)
    assert result.stderr == (
        "lc: The working directory no longer exists: go to the project's directory.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["greetings"], "There is no output 'greetings'"),
        (["baseline/nothing"], "There is no output 'baseline/nothing'"),
        (
            ["elsewhere/greeting"],
            "There is no output 'elsewhere/greeting': no universe 'elsewhere'",
        ),
        (["-u", "elsewhere"], "There is no universe 'elsewhere': there are baseline."),
    ],
)
def test_name_of_nothing(sandbox: Sandbox, arguments: list[str], sentence: str) -> None:
    assert _refused(sandbox, *arguments).startswith(sentence)


def test_option_that_does_not_exist(sandbox: Sandbox) -> None:
    result = sandbox.lc("run", "--frobnicate", check=2)
    assert "No such option" in result.stderr and "--frobnicate" in result.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[run\n", "lightcone.toml cannot be read"),
        ("[runs]\n", "unknown section [runs]"),
        ("[run]\ngracious = 1\n", "unknown setting 'gracious' in [run]"),
        ("[run]\ngrace = 'soon'\n", "'soon' is not a duration"),
        ("[run]\ngrace = 0\n", "it must be more than zero"),
        ("[run]\noversized = 'yes'\n", "use one of refuse, clamp."),
        ("[results]\nlayout = 'flat'\n", "use one of auto, file, directory."),
    ],
)
def test_settings_that_cannot_be_used(sandbox: Sandbox, settings: str, words: str) -> None:
    (sandbox.project / "lightcone.toml").write_text(settings)
    sentence = _refused(sandbox)
    assert words in sentence
    assert str(sandbox.project / "lightcone.toml") in sentence


@pytest.mark.parametrize("value", ["banana", "-1", "0", "5 parsecs"])
def test_variable_that_cannot_be_used(sandbox: Sandbox, value: str) -> None:
    sentence = _refused(sandbox, env={"LIGHTCONE_IDLE_TIMEOUT": value})
    assert "LIGHTCONE_IDLE_TIMEOUT" in sentence
    assert repr(value) in sentence


def test_results_that_are_a_file(sandbox: Sandbox) -> None:
    (sandbox.project / "results").write_text("mine\n")
    sentence = _refused(sandbox)
    assert sentence.startswith(f"The results directory {sandbox.project / 'results'}")
    assert sentence.endswith(": make it writable, and run again.")
    assert (sandbox.project / "results").read_text() == "mine\n"


def test_results_that_cannot_be_written(sandbox: Sandbox) -> None:
    results = sandbox.project / "results"
    if os.getuid() == 0:  # to whom nothing but a file system of the kernel's own says no
        results.symlink_to("/proc/self")
    else:
        results.mkdir(mode=0o500)
    sentence = _refused(sandbox)
    assert sentence.startswith(f"The results directory {results}")
    if os.getuid() != 0:
        results.chmod(0o700)


def test_output_that_cannot_be_written(sandbox: Sandbox) -> None:
    state = sandbox.project / "results" / "baseline" / ".lightcone"
    state.mkdir(parents=True)
    (state / "greeting").write_text("in the way\n")
    result = sandbox.lc("run", check=1)
    assert "baseline/greeting: FAILED, " in result.stdout
    assert str(state / "greeting") in result.stdout
    assert result.stderr == ""
    (state / "greeting").unlink()
    sandbox.lc("run")


def test_run_within_a_recipe_is_refused(sandbox: Sandbox) -> None:
    analysis = Analysis(sandbox)
    line = shlex.join([sys.executable, "-m", "lightcone", "run", "y"])
    analysis.spec(output("x", f"{line}; echo 1 > {{output}}"), output("y", "echo 1 > {output}"))
    told = analysis.run("x", check=1)
    assert (
        "baseline/x | lc: 'lc run' was called inside the recipe of baseline/x, which it might "
        "wait for: declare what it needs as inputs in astra.yaml instead.\n" in told.stdout
    )
    assert "baseline/x: FAILED, exit code 2\n" in told.stdout
    assert analysis.made() == ["x"]


def test_scratch_that_cannot_be_had_is_told_and_loses_nothing(sandbox: Sandbox) -> None:
    sandbox.lc("run")
    sandbox.lc("session", "stop")
    made = sandbox.project / "results" / "baseline" / "greeting.txt"
    before = made.stat().st_mtime_ns
    file = sandbox.base / "file"
    file.touch()
    for variable in ("LIGHTCONE_SCRATCH", "LIGHTCONE_RUNTIME_DIR"):
        sentence = _refused(sandbox, "-f", code=3, env={variable: str(file / "below")})
        assert variable in sentence
    assert made.stat().st_mtime_ns == before
    sandbox.lc("status", "--check")


def test_terminal_program_that_is_missing_is_told(sandbox: Sandbox) -> None:
    sentence = _refused(sandbox, code=3, env={"PATH": str(sandbox.base)})
    assert sentence.startswith("A session needs tmux, which is not on the PATH: install tmux")


@pytest.mark.parametrize("arguments", [[], ["-f"]])
def test_mistakes_put_nothing_into_the_json(sandbox: Sandbox, arguments: list[str]) -> None:
    _refused(sandbox, "--json", *arguments, "nothing")
    env = {"PATH": str(sandbox.base)}
    result = sandbox.lc("run", "--json", *arguments, check=3, env=env)
    assert [json.loads(line) for line in result.stdout.splitlines()] == []
    assert result.stderr.count("\n") == 1


def test_project_whose_name_is_hard_to_quote(sandbox: Sandbox) -> None:
    command = "cp {inputs.raw} {output}; pwd >> {output}"
    root = sandbox.new_project("a 'b\" $c #{d} é;")
    (root / "raw.txt").write_text("raw\n")
    (root / "astra.yaml").write_text(
        f"{RAW}outputs: [{{id: x, type: data, format: txt, inputs: [raw], recipe: "
        f"{{command: '{command}'}}}}]\n"
    )
    sandbox.lc("run", cwd=root)
    made = root / "results" / "baseline" / "x.txt"
    assert made.read_text() == f"raw\n{root}\n"
    told = json.loads(sandbox.lc("run", "--json", cwd=root).stdout.splitlines()[-1])
    assert (told["up_to_date"], told["session"]) == (1, "none")


def test_project_whose_name_is_no_text(sandbox: Sandbox) -> None:
    root = sandbox.base / os.fsdecode(b"caf\xe9")
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system has only names that are text")
    sandbox.projects.append(root)
    _make_one(root)
    sandbox.lc("run", cwd=root)
    assert (root / "results" / "baseline" / "x.txt").read_text() == "1\n"
    sandbox.lc("status", "--check", cwd=root)
    (root / "astra.yaml").write_text(ONE.replace("echo 1", "false; echo 1"))
    told = sandbox.lc("run", "--json", cwd=root, check=1).stdout
    assert json.loads(told.splitlines()[-1])["failed"] == 1
    assert "FAILED, exit code 1" in sandbox.lc("run", cwd=root, check=1).stdout


def _make_one(root: Path) -> None:
    (root / "astra.yaml").write_text(ONE)
