"""A recipe that fails: what is told, what is still made, what is kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import is_alive
from tests.run.analyses import Analysis, output


def test_failure_is_told_with_its_last_lines_and_the_rest_is_made(analysis: Analysis) -> None:
    analysis.spec(
        output("bad", "echo out; seq 1000 1099 >&2; echo half > {output}; exit 3"),
        output("after", "cat {inputs.bad} > {output}", ("bad",)),
        output("last", "cat {inputs.after} > {output}", ("after",)),
        output("good", "sleep 0.3; echo 1 > {output}"),
        output("better", "cat {inputs.good} > {output}", ("good",)),
    )
    result = analysis.run(check=1)
    assert result.stderr == ""
    told = result.stdout[result.stdout.index("baseline/bad: FAILED") :]
    lines = "".join(f"    {number}\n" for number in range(1080, 1100))
    log = "results/baseline/.lightcone/bad/log.txt"
    assert told.startswith(
        f"baseline/bad: FAILED, exit code 3\n  its last lines:\n{lines}  its whole log: {log}\n"
        "  kept: 5 B of partial work, from which 'lc run --resume' goes on\n"
        "baseline/after: blocked by baseline/bad\nbaseline/last: blocked by baseline/bad\n"
    )
    counted = r"lc: 2 made, 1 failed, 2 blocked in [\d.]+ s; mend what failed, and run again\n$"
    assert re.search(counted, told)
    assert sorted(analysis.made()) == ["bad", "better", "good"]
    whole = (analysis.root / log).read_text()
    assert "$ echo bad >>" in whole
    assert "out\n" + "".join(f"{number}\n" for number in range(1000, 1100)) in whole
    assert not analysis.path("bad").exists()
    assert (analysis.state("bad") / "partial").read_text() == "half\n"
    assert analysis.states() == {
        "bad": "failed", "after": "missing", "last": "missing", "good": "ok", "better": "ok",
    }  # fmt: skip
    assert analysis.why("bad") == "recipe failed with exit code 3"


def test_failure_in_json(analysis: Analysis) -> None:
    analysis.spec(
        output("bad", "echo one; echo two; exit 3"),
        output("after", "cat {inputs.bad} > {output}", ("bad",)),
    )
    told = analysis.events(check=1)
    (failed,) = (each for each in told if each["event"] == "failed")
    assert failed == {
        "event": "failed",
        "id": "bad",
        "universe": "baseline",
        "reason": "exit code 3",
        "exit_code": 3,
        "tail": ["one", "two"],
        "log": str(analysis.state("bad") / "log.txt"),
    }
    blocked = {"event": "blocked", "id": "after", "universe": "baseline", "by": "bad"}
    assert blocked in told
    assert (told[-1]["failed"], told[-1]["blocked"], told[-1]["made"]) == (1, 1, 0)


@pytest.mark.parametrize("suffix", ["txt", ""], ids=["file", "directory"])
def test_previous_result_stays_when_its_remaking_fails(analysis: Analysis, suffix: str) -> None:
    there = "{output}" if suffix else "{output}/file"
    command = f'test ! -e {there}; echo $SAYS > {there}; exit "$CODE"'
    analysis.spec(output("x", command, suffix=suffix))
    path = analysis.path("x", suffix=suffix)
    file = path if suffix else path / "file"
    analysis.run(env={"CODE": "0", "SAYS": "good"})
    before, manifest = _looks(file), (analysis.state("x") / "manifest.json").read_bytes()
    for says in ("bad", "worse"):
        analysis.run("-f", check=1, env={"CODE": "1", "SAYS": says})
        assert file.read_text() == "good\n"
        assert _looks(file) == before
        assert (analysis.state("x") / "manifest.json").read_bytes() == manifest
        assert analysis.states() == {"x": "ok"}
        assert analysis.leftovers() == []
        partial = analysis.state("x") / "partial"
        assert (partial if suffix else partial / "file").read_text() == f"{says}\n"
    assert analysis.summary()["session"] == "none"
    analysis.run("-f", env={"CODE": "0", "SAYS": "better"})
    assert file.read_text() == "better\n"
    assert not (analysis.state("x") / "partial").exists()


def _looks(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_mode


def test_previous_result_stays_when_a_changed_recipe_fails(analysis: Analysis) -> None:
    analysis.spec(output("x", "echo good > {output}"))
    analysis.run()
    analysis.spec(output("x", "echo bad > {output}; exit 9"))
    assert analysis.states() == {"x": "stale"}
    analysis.run(check=1)
    assert analysis.text("x") == "good\n"
    assert analysis.states() == {"x": "failed"}
    analysis.spec(output("x", "echo good > {output}"))
    assert analysis.states() == {"x": "ok"}
    assert analysis.summary()["session"] == "none"


def test_recipe_that_fails_is_tried_again_by_the_next_run(analysis: Analysis) -> None:
    analysis.spec(output("x", "echo 1 > {output}; exit ${{CODE-0}}"))
    analysis.run(check=1, env={"CODE": "1"})
    analysis.run()
    assert analysis.states() == {"x": "ok"}
    assert not (analysis.state("x") / "failure.json").exists()


@pytest.mark.parametrize(
    ("command", "suffix", "reason"),
    [
        ("true", "txt", "it exited with 0 and wrote no results/baseline/x.txt"),
        ("rmdir {output}", "", "it exited with 0 and wrote no results/baseline/x"),
        ("true", "", "it exited with 0 and left results/baseline/x/ empty"),
        ("ln -s nowhere {output}", "txt", "it exited with 0 and wrote no results/baseline/x.txt"),
        ("no-such-program > {output}", "txt", "exit code 127"),
        ("echo 1 > {output}; kill -9 $$", "txt", "it was ended by signal 9 (SIGKILL)"),
        ("echo 1 > {output}; kill -TERM $$", "txt", "it was ended by signal 15 (SIGTERM)"),
        ("if then", "txt", "exit code 2"),
    ],
)
def test_reason_of_a_failure(analysis: Analysis, command: str, suffix: str, reason: str) -> None:
    analysis.spec(output("x", command, suffix=suffix), output("y", "echo 1 > {output}"))
    told = analysis.events("x", check=1)
    (failed,) = (each for each in told if each["event"] == "failed")
    assert failed["reason"] == reason
    assert analysis.states()["x"] == "failed"
    assert analysis.leftovers() == []


def test_recipe_is_ended_at_its_time_limit_with_all_it_started(analysis: Analysis) -> None:
    command = 'echo $$ > "$PLACE/pids"; sleep 4321 & echo $! >> "$PLACE/pids"; wait'
    analysis.spec(output("x", command, resources={"time_limit": "4s"}))
    told = analysis.run(check=1)
    assert "x: FAILED, it was ended at its time limit of 4.0 s" in told.stdout
    assert not any(map(is_alive, analysis.pids("pids")))
    assert analysis.states() == {"x": "failed"}


def test_process_left_behind_ends_with_its_recipe(analysis: Analysis) -> None:
    analysis.spec(output("x", 'sleep 4321 & echo $! > "$PLACE/pids"; echo 1 > {output}'))
    analysis.run()
    assert not is_alive(analysis.pids("pids")[0])


def test_recipe_that_asks_for_more_than_there_is_is_refused(analysis: Analysis) -> None:
    analysis.spec(
        output("large", "echo 1 > {output}", resources={"cpus": 1000}),
        output("after", "cat {inputs.large} > {output}", ("large",)),
        output("vast", "echo 1 > {output}", resources={"memory": "900Ti"}),
        output("small", "echo 1 > {output}"),
    )
    told = analysis.run(check=1).stdout
    cpus = analysis.box.status()["workers"][0]["cpus"]
    remedy = 'lower what it asks for, or set oversized = "clamp" in [run] of lightcone.toml'
    assert (
        "baseline/large: FAILED, it asks for 1000 cpus, and the largest worker has "
        f"{cpus:g} cpus: {remedy}\n" in told
    )
    assert "baseline/vast: FAILED, it asks for 1 cpu, 900.0 TiB of memory, and" in told
    assert "2 failed, 1 blocked" in told
    assert analysis.made() == ["small"]


def test_recipe_that_asks_for_more_than_there_is_gets_all_where_clamped(
    analysis: Analysis,
) -> None:
    analysis.write("lightcone.toml", '[run]\noversized = "clamp"\n')
    analysis.spec(
        output(
            "large",
            "echo $OMP_NUM_THREADS > {output}",
            resources={"cpus": 1000, "memory": "900Ti"},
        )
    )
    analysis.run()
    cpus = int(analysis.box.status()["workers"][0]["cpus"])
    assert analysis.text("large") == f"{cpus}\n"


def test_recipe_that_removes_the_results_harms_no_later_run(analysis: Analysis) -> None:
    analysis.spec(output("x", "rm -rf results; ${{THEN-true}}"))
    analysis.run(check=1)
    analysis.spec(output("x", "rm -rf results; mkdir -p results/baseline; echo 1 > {output}"))
    analysis.run(check=None)
    analysis.spec(output("x", "echo 2 > {output}"))
    analysis.run()
    assert analysis.text("x") == "2\n"
    assert analysis.states() == {"x": "ok"}


def test_output_of_any_bytes_and_any_length(analysis: Analysis) -> None:
    data = bytes(range(256)) * 4000
    (analysis.place / "data").write_bytes(data)
    analysis.spec(output("x", 'cat "$PLACE/data"; echo 1 > {output}'))
    told = analysis.run().stdout
    assert "lines not shown: they are in the log" in told or "baseline/x | " in told
    assert (analysis.state("x") / "log.txt").read_bytes().count(data) == 1
