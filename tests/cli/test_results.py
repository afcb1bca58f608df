"""``lc log``, ``verify`` and ``clean``, and the options of ``lc run`` that need real runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lightcone.cli.verify import next_steps
from lightcone.state.verify import Trouble
from tests.helpers import Sandbox

SPEC = """\
version: "0.0.14"
name: results
inputs: []
outputs:
  - id: raw
    type: data
    format: txt
    recipe: {command: "echo measuring; echo 1 > {output}"}
  - id: fit
    type: data
    format: txt
    inputs: [raw]
    recipe: {command: "cat {inputs.raw} {inputs.raw} > {output}"}
"""


@pytest.fixture(scope="module")
def made(shared: Sandbox) -> Path:
    """A project that has been made once, on the module's session."""
    (shared.project / "astra.yaml").write_text(SPEC)
    shared.lc("run")
    return shared.project / "results" / "baseline"


def test_a_log_has_the_command_the_output_and_the_end(shared: Sandbox, made: Path) -> None:
    lines = shared.lc("log", "raw").stdout.splitlines()
    assert lines[0].startswith("# baseline/raw, ")
    assert lines[3:5] == ["$ echo measuring; echo 1 > results/baseline/raw.txt", "measuring"]
    assert lines[-1].startswith("# exit code 0 after ")


def test_a_log_of_what_is_not_there_is_refused(shared: Sandbox, made: Path) -> None:
    assert "no output 'nothing'" in shared.lc("log", "nothing", check=2).stderr
    (made / ".lightcone" / "raw" / "log.txt").rename(made / "kept")
    assert "has no log" in shared.lc("log", "raw", check=2).stderr
    (made / "kept").rename(made / ".lightcone" / "raw" / "log.txt")


def test_verify_finds_nothing_wrong_with_what_was_made(shared: Sandbox, made: Path) -> None:
    told = json.loads(shared.lc("verify", "--json").stdout)
    assert told == {"verified": 2, "kinds": {}, "findings": []}


@pytest.mark.parametrize(
    ("change", "troubles"),
    [
        (lambda made: (made / "raw.txt").write_text("2\n"), {"raw": "tampered"}),
        (lambda made: (made / "fit.txt").unlink(), {"fit": "missing"}),
        (
            lambda made: (made / ".lightcone/raw/manifest.json").unlink(),
            {"raw": "no record", "fit": "broken chain"},
        ),
        (
            lambda made: (made / ".lightcone/fit/manifest.json").write_text("{"),
            {"fit": "damaged record"},
        ),
    ],
    ids=["tampered", "missing", "broken-chain", "damaged-record"],
)
def test_verify_names_the_trouble(
    shared: Sandbox, made: Path, change: object, troubles: dict[str, str]
) -> None:
    assert callable(change)
    change(made)
    told = json.loads(shared.lc("verify", "--json", check=1).stdout)
    assert {row["id"]: row["trouble"] for row in told["findings"]} == troubles
    assert told["kinds"] == dict(Counter(troubles.values()))
    shared.lc("run")
    assert json.loads(shared.lc("verify", "--json").stdout)["findings"] == []


def test_a_dry_run_says_what_and_why_and_makes_nothing(shared: Sandbox, made: Path) -> None:
    (made / "fit.txt").unlink()
    text = shared.lc("run", "-n").stdout
    assert "baseline/fit: would be made: results/baseline/fit.txt is missing" in text
    assert not (made / "fit.txt").exists()
    shared.lc("run")
    assert "to be made" not in shared.lc("run", "-n").stdout


def test_what_lc_writes_has_the_callers_umask(shared: Sandbox) -> None:
    _write(shared.project, ("private", "umask; echo x > {output}"))
    shared.python(
        "-c", "import os; os.umask(0o077); from lightcone.cli.main import main; main()", "run"
    )
    state = shared.project / "results" / "baseline" / ".lightcone" / "private"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (state, *state.iterdir())}
    assert modes == {"private": 0o700, "log.txt": 0o600, "manifest.json": 0o600}


def _write(project: Path, *recipes: tuple[str, str]) -> None:
    outputs = "".join(
        f"  - {{id: {name}, type: data, format: txt, recipe: {{command: {json.dumps(command)}}}}}\n"
        for name, command in recipes
    )
    (project / "astra.yaml").write_text(
        f'version: "0.0.14"\nname: results\ninputs: []\noutputs:\n{outputs}'
    )


def test_partial_work_is_kept_resumed_and_cleaned(sandbox: Sandbox) -> None:
    # Goes on from what is there, and fails until it has been run three times.
    command = "echo step >> {output}; test $(wc -l < {output}) -ge 3"
    _write(sandbox.project, ("chain", command))
    path = sandbox.project / "results" / "baseline" / "chain.txt"
    partial = path.parent / ".lightcone" / "chain" / "partial"
    sandbox.lc("run", check=1)
    assert (partial.read_text(), path.exists()) == ("step\n", False)
    sandbox.lc("run", check=1)
    assert partial.read_text() == "step\n", "without --resume a recipe starts clean"
    sandbox.lc("run", "--resume", check=1)
    assert partial.read_text() == "step\n" * 2
    sandbox.lc("run", "--resume")
    assert path.read_text() == "step\n" * 3
    assert not partial.exists()

    _write(sandbox.project, ("chain", f"{command}; false"))
    sandbox.lc("run", "-f", check=1)
    assert partial.exists()
    assert "freed 5 B" in sandbox.lc("clean").stdout
    assert (partial.exists(), path.read_text()) == (False, "step\n" * 3)


def test_partial_work_of_another_recipe_is_not_resumed(shared: Sandbox) -> None:
    _write(shared.project, ("other", "echo old > {output}; false"))
    shared.lc("run", check=1)
    _write(shared.project, ("other", "cat {output} 2>/dev/null || true; echo new > {output}"))
    assert "other | old" not in shared.lc("run", "--resume").stdout
    assert (shared.project / "results/baseline/other.txt").read_text() == "new\n"


def test_jobs_bounds_what_runs_at_once(shared: Sandbox, tmp_path: Path) -> None:
    # Each recipe fails where another one is running.
    alone = f"mkdir {tmp_path}/busy; sleep 0.1; rmdir {tmp_path}/busy; echo x > {{output}}"
    _write(shared.project, *((f"j{number}", alone) for number in range(4)))
    assert "4 made" in shared.lc("run", "-j", "1").stdout


def test_fail_fast_begins_nothing_more(shared: Sandbox) -> None:
    _write(shared.project, ("f0", "false"), *((f"f{n}", "echo x > {output}") for n in range(1, 6)))
    told = shared.lc("run", "--fail-fast", "-j", "1", "--json", check=1).stdout.splitlines()
    summary = json.loads(told[-1])
    assert (summary["failed"], summary["made"]) == (1, 0)
    assert json.loads(shared.lc("run", "--json", check=1).stdout.splitlines()[-1])["made"] == 5


@pytest.mark.parametrize(
    ("troubles", "steps"),
    [
        ({Trouble.TAMPERED}, ["'lc run' makes them again"]),
        ({Trouble.ABSENT}, ["put the missing sources back, or correct astra.yaml"]),
        (
            {Trouble.ABSENT, Trouble.TAMPERED},
            [
                "put the missing sources back, or correct astra.yaml",
                "'lc run' makes the others again",
            ],
        ),
        ({Trouble.NEWER}, ["upgrade lc"]),
        (set(), []),
    ],
)
def test_verify_says_what_a_run_can_do(troubles: set[Trouble], steps: list[str]) -> None:
    assert next_steps(troubles) == steps
