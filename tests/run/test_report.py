"""What a run shows: lines, a live display on a terminal, JSON for programs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightcone.run.live import LiveReporter
from lightcone.spec.output import Output
from tests.helpers import wait_until
from tests.run.analyses import Analysis, output

_SECONDS = r"\d+(\.\d+)? (ms|s)"


def test_plain_lines(analysis: Analysis) -> None:
    analysis.spec(
        output("a", "echo hello; echo 1 > {output}"),
        output("b", "cat {inputs.a} > {output}", ("a",)),
    )
    told = analysis.run().stdout
    assert re.fullmatch(
        "baseline/a: started\n"
        r"baseline/a \| hello" + "\n"
        f"baseline/a: made in {_SECONDS}\n"
        "baseline/b: started\n"
        f"baseline/b: made in {_SECONDS}\n"
        f"lc: 2 made in {_SECONDS}\n",
        told,
    )
    assert re.fullmatch(f"lc: 2 up to date in {_SECONDS}\n", analysis.run().stdout)


def test_lines_of_two_recipes_are_never_torn_into_one(analysis: Analysis) -> None:
    """Each prints its lines in pieces, with pauses that let the other one print between them."""
    talk = (
        "touch $PLACE/{0}; until [ -e $PLACE/{1} ]; do sleep 0.02; done; "
        "for n in $(seq 150); do printf {0}; printf {0}{0}; "
        '[ $((n % 10)) != 0 ] || sleep 0.02; echo "{0} $n"; done; echo 1 > {{output}}'
    )
    one, other = "a" * 20, "b" * 20
    analysis.spec(output("a", talk.format(one, other)), output("b", talk.format(other, one)))
    lines = analysis.run().stdout.splitlines()
    for name in ("a", "b"):
        mine = [line for line in lines if line.startswith(f"baseline/{name} |")]
        assert mine == [f"baseline/{name} | {name * 80} {n}" for n in range(1, 151)]
    others = [line for line in lines if " | " not in line]
    assert len(others) == 5
    first = next(n for n, line in enumerate(lines) if line.startswith("baseline/b |"))
    last = max(n for n, line in enumerate(lines) if line.startswith("baseline/a |"))
    assert first < last  # they did run at the same time


def test_lines_come_as_they_are_printed(analysis: Analysis) -> None:
    python = f"{shlex.quote(sys.executable)} -c 'print(1)'; "
    waits = 'until [ -e "$PLACE/gate" ]; do sleep 0.05; done; '
    analysis.spec(output("x", f"{python}{waits} echo 1 > {{output}}"))
    run = analysis.begin()
    assert run.stdout is not None
    assert run.stdout.readline() == b"baseline/x: started\n"
    assert run.stdout.readline() == b"baseline/x | 1\n"
    analysis.open("gate")
    assert run.wait(timeout=60) == 0


def test_every_line_of_json_and_the_last_is_the_summary(analysis: Analysis) -> None:
    analysis.spec(
        output("a", "echo hello; echo oh >&2; echo 1 > {output}"),
        output("b", "cat {inputs.a} > {output}", ("a",)),
        output("bad", "exit 1"),
        output("after", "cat {inputs.bad} > {output}", ("bad",)),
    )
    first = analysis.run("--json", check=1)
    assert first.stderr == ""
    told = analysis.events(check=1)
    keys = {"event", "id", "universe"}
    known = {
        "session": {"event", "session"},
        "note": {"event", "text"},
        "up_to_date": keys,
        "started": keys,
        "lines": keys | {"lines"},
        "made": keys | {"seconds"},
        "failed": keys | {"reason", "exit_code", "tail", "log"},
        "blocked": keys | {"by"},
    }
    for event in told[:-1]:
        assert set(event) == known[event["event"]]
    assert told[-1].keys() >= {
        "event", "made", "up_to_date", "failed", "blocked", "seconds", "session",
    }  # fmt: skip
    assert told[-1]["event"] == "summary"
    assert told[-1]["session"] == "reused"
    assert (told[-1]["up_to_date"], told[-1]["failed"], told[-1]["blocked"]) == (2, 1, 1)


def test_session_that_is_spawned_is_a_note_in_json(alone: Analysis) -> None:
    alone.spec(output("a", "echo hello; echo 1 > {output}"))
    # Where it takes long, that is a note too.
    told = [each for each in alone.events() if not each.get("text", "").endswith(" s)")]
    assert told[0]["event"] == "note"
    assert told[0]["text"].startswith("starting the session lc-project-")
    assert told[1] == {"event": "session", "session": "spawned"}
    assert {"event": "lines", "id": "a", "universe": "baseline", "lines": ["hello"]} in told
    assert told[-1]["session"] == "spawned"


class Terminal:
    """A terminal of the test's own, in which commands are typed and whose screen can be read."""

    def __init__(self, analysis: Analysis) -> None:
        self._socket = analysis.box.base / "terminal"
        self._server = ["tmux", "-f", "/dev/null", "-S", str(self._socket)]
        shell = ["new-session", "-d", "-x", "100", "-y", "30", "-c", str(analysis.root), "sh"]
        subprocess.run([*self._server, *shell], env=analysis.box.env, check=True, timeout=30)

    def type(self, *keys: str) -> None:
        """Press keys, named as the terminal's program names them, or type text."""
        subprocess.run([*self._server, "send-keys", *keys], check=True, timeout=30)

    def lc(self, *arguments: str) -> None:
        """Type an ``lc`` command and, after it, one that shows how it ended."""
        line = shlex.join([sys.executable, "-m", "lightcone", *arguments])
        self.type(f"clear; {line}; echo ended with $?", "Enter")

    def screen(self) -> str:
        """What is to be seen."""
        shown = [*self._server, "capture-pane", "-p"]
        return subprocess.run(shown, check=True, timeout=30, capture_output=True, text=True).stdout

    def shows(self, pattern: str) -> str:
        """The screen, once it shows ``pattern``."""
        try:
            wait_until(lambda: re.search(pattern, self.screen()), f"it shows {pattern!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None
        return self.screen()

    def close(self) -> None:
        subprocess.run([*self._server, "kill-server"], check=True, timeout=30)
        self._socket.unlink()


@pytest.fixture
def terminal(analysis: Analysis) -> Iterator[Terminal]:
    opened = Terminal(analysis)
    yield opened
    opened.close()


_GATE = 'until [ -e "$PLACE/gate" ]; do sleep 0.05; done; echo 1 > {output}'


def test_terminal_shows_what_runs_and_how_far_it_is(analysis: Analysis, terminal: Terminal) -> None:
    analysis.spec(
        output("quick", "echo hello; echo 1 > {output}"),
        output("slow", _GATE, ("quick",)),
        output("after", "cat {inputs.slow} > {output}", ("slow",)),
    )
    terminal.lc("run")
    during = terminal.shows(r"1/3 outputs +1 running")
    assert re.search(rf"━+.* 1/3 outputs +1 running +{_SECONDS}", during)
    assert re.search(rf"\n  baseline/slow  {_SECONDS}", during)
    assert "baseline/quick | hello\n" in during
    assert re.search(rf"baseline/quick: made in {_SECONDS}\n", during)
    analysis.open("gate")
    after = terminal.shows("ended with 0")
    assert "━" not in after
    assert " running" not in after
    assert re.search(rf"baseline/after: made in {_SECONDS}\nlc: 3 made in {_SECONDS}\n", after)


def test_terminal_after_a_failure_and_when_there_is_nothing_to_do(
    analysis: Analysis, terminal: Terminal
) -> None:
    analysis.spec(output("bad", "echo some [red]markup[/red] text; exit ${{CODE-3}}"))
    terminal.lc("run")
    told = terminal.shows("ended with 1")
    assert "baseline/bad | some [red]markup[/red] text\n" in told
    assert "baseline/bad: FAILED, exit code 3\n" in told
    assert "    some [red]markup[/red] text\n" in told
    analysis.spec(output("good", "echo 1 > {output}"))
    analysis.run()
    terminal.lc("run")
    assert re.search(rf"lc: 1 up to date in {_SECONDS}\n", terminal.shows("ended with 0"))


def test_control_c_on_a_terminal(analysis: Analysis, terminal: Terminal) -> None:
    trap = 'trap "echo ending; exit 0" TERM; touch "$PLACE/begun"; '
    analysis.spec(output("x", trap + _GATE))
    terminal.lc("run")
    analysis.began("begun")
    terminal.shows("1 running")
    terminal.type("C-c")
    told = terminal.shows("ended with 130")
    assert "lc: asked 1 recipe to end; interrupt again to end at once\n" in told
    assert "baseline/x | ending\n" in told
    assert "baseline/x: interrupted\n" in told
    assert "━" not in told


def test_terminal_without_any_abilities(analysis: Analysis, terminal: Terminal) -> None:
    analysis.spec(output("x", "echo hello; echo 1 > {output}"))
    terminal.type("export TERM=dumb", "Enter")
    terminal.lc("run")
    told = terminal.shows("ended with 0")
    assert "baseline/x | hello\n" in told
    assert "━" not in told


@pytest.mark.parametrize("program", ["cat", "tee copy"])
def test_no_display_where_it_is_not_a_terminal(
    analysis: Analysis, terminal: Terminal, program: str
) -> None:
    analysis.spec(output("x", "echo 1 > {output}"))
    line = shlex.join([sys.executable, "-m", "lightcone", "run"])
    terminal.type(f"clear; {line} | {program}; echo ended with $?", "Enter")
    told = terminal.shows("ended with 0")
    assert "baseline/x: started\n" in told


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["plain", "json"])
def test_what_the_terminal_cannot_write_stops_nobody(
    analysis: Analysis, options: tuple[str, ...]
) -> None:
    analysis.spec(output("x", "echo é → ✓; echo 1 > {output}"))
    told = analysis.run(*options, env={"PYTHONIOENCODING": "ascii"})
    assert told.stderr == ""
    assert analysis.states() == {"x": "ok"}


def test_display_forgets_a_recipe_whose_output_another_run_has_made() -> None:
    root = Path("/project")
    made = Output("u", "x", root, f"{root}/x", f"{root}/s", False, "true", "true")
    reporter = LiveReporter()
    reporter.started(made)  # and its worker was lost
    reporter.up_to_date(made)
    assert reporter.running == {}
