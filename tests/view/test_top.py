"""Looking at a session in which things run, wait and fail."""

from __future__ import annotations

import functools
import json
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from libtmux import Server

from tests.helpers import Sandbox, wait_until
from tests.run.analyses import Analysis, output
from tests.terminal import Terminal

_WAITS = "echo hello from $0; touch $PLACE/{0}; until [ -e $PLACE/gate ]; do sleep 0.05; done"


def _waits(name: str) -> str:
    return f"{_WAITS.format(name)}; echo it > {{output}}"


@pytest.fixture(scope="module")
def busy() -> Iterator[Analysis]:
    """One output failed, one holds every processor, one waits for those, one for that one."""
    box = Sandbox()
    try:
        analysis = Analysis(box)
        cpus = box.start()["workers"][0]["cpus"]
        analysis.spec(
            output("bad", "echo no luck; exit 3"),
            output("long", _waits("long"), resources={"cpus": cpus}),
            output("queued", _waits("queued"), resources={"cpus": cpus}),
            output("after", "cp {inputs.long} {output}", ("long",)),
        )
        analysis.run("bad", check=1)
        analysis.run("--detach", "--name", "night", "after")
        wait_until((analysis.place / "long").exists, "the first recipe runs")
        analysis.run("--detach", "--name", "day", "queued")
        wait_until(lambda: _look(analysis)["waiting_count"] == 2, "the others wait")
        yield analysis
        analysis.open("gate")
        assert box.lc("wait", "night").returncode == 0
        assert box.lc("wait", "day", check=None).returncode in (0, 130)
    finally:
        box.close()


def _look(analysis: Analysis) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(analysis.box.lc("session", "top", "--json").stdout)
    return told


@pytest.fixture
def terminal(busy: Analysis, outer: Server) -> Iterator[Terminal]:
    """A terminal with the screen; leaving it harms nothing."""
    terminal = Terminal(busy.box, outer)
    try:
        terminal.run("session", "top")
        terminal.shows("WORKERS 1", "RUNNING 1", "q leave")
        yield terminal
        assert len(busy.recipes()) > 0
    finally:
        terminal.close()


def test_it_says_what_runs_waits_and_failed(terminal: Terminal) -> None:
    terminal.shows(
        "baseline/long",
        "WAITING 2",
        "0 free",
        "for baseline/long",
        "FAILED 1",
        "exit code 3",
        "lc run (night)",
        "lc run (day)",
    )


def test_it_fits_any_size(terminal: Terminal) -> None:
    for width, height in ((160, 50), (80, 12), (40, 8), (80, 24)):
        terminal.tmux("resize-window", "-x", str(width), "-y", str(height))
        wait_until(functools.partial(_fills, terminal, width), "it fills the width")
        terminal.shows("RUNNING 1", "q leave")


def _fills(terminal: Terminal, width: int) -> bool:
    first, *_ = terminal.screen().splitlines()
    # Its end is on the right: what was drawn for another width has been cut off, or is too short.
    return first.rstrip().endswith("in use") and width - 2 <= len(first.rstrip()) <= width


def test_a_log_is_a_key_away(terminal: Terminal) -> None:
    terminal.type("Enter")
    terminal.shows("hello from", "q goes back")
    terminal.type("q")
    terminal.shows("RUNNING 1")
    terminal.type("G", "Enter")
    terminal.shows("no luck", "exit code 3 after")


def test_names_are_filtered(terminal: Terminal) -> None:
    terminal.type("/", "queu")
    terminal.hides("baseline/bad")
    terminal.shows("baseline/queued", "/queu")
    terminal.type("Enter")
    terminal.shows("only what has 'queu'")
    terminal.type("s")
    terminal.shows(", by name")
    terminal.type("Escape")
    terminal.shows("baseline/bad", "baseline/long")


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_leaving_gives_the_terminal_back(busy: Analysis, outer: Server, key: str) -> None:
    terminal = Terminal(busy.box, outer)
    try:
        lc = shlex.join([sys.executable, "-m", "lightcone", "session", "top"])
        terminal.shell(f"{lc}; echo left $?; stty -a; cat")
        terminal.shows("RUNNING 1")
        for typed in ("C-z", "C-\\", "C-d", "x"):
            terminal.type(typed)
        terminal.type(key)
        terminal.shows("left 0", " icanon", " echo ", "isig")
        assert "RUNNING" not in terminal.screen()
    finally:
        terminal.close()
    assert len(busy.recipes()) > 0


def test_as_text_and_as_json(busy: Analysis) -> None:
    shown = busy.box.lc("session", "top", "--once").stdout
    for text in ("baseline/long", "for baseline/long", "FAILED 1", "exit code 3", "0 free"):
        assert text in shown
    assert "\x1b" not in shown
    told = json.loads(busy.box.lc("session", "top", "--json").stdout)
    (running,) = told["running"]
    assert (running["name"], running["host"]) == ("baseline/long", told["workers"][0]["host"])
    assert running["memory_used"] > 0
    assert running["log"] == str(busy.state("long") / "log.txt")
    assert {each["label"]: each["total"] for each in told["runs"]} == {"night": 2, "day": 1}
    (failure,) = told["failures"]
    assert (failure["name"], failure["reason"]) == ("baseline/bad", "exit code 3")
    assert [each["name"] for each in told["waiting"]] == ["baseline/queued", "baseline/after"]


def test_it_needs_a_terminal_and_a_session(busy: Analysis, sandbox: Sandbox) -> None:
    refused = busy.box.lc("session", "top", check=2)
    assert refused.stderr.startswith("lc: The screen needs a terminal: use '--once'")
    refused = sandbox.lc("session", "top", "--once", check=3)
    assert refused.stderr.startswith("lc: There is nothing to look at, no session is running")


def test_attach_opens_on_the_same_and_can_do_nothing(busy: Analysis, outer: Server) -> None:
    terminal = Terminal(busy.box, outer)
    try:
        terminal.run("session", "attach")
        terminal.shows("RUNNING 1", "baseline/long", "0 free", "exit code 3", "read-only")
        terminal.type("c", "y", "Enter", "/")
        terminal.type("1")
        terminal.shows(" - distributed.")
        terminal.type("0")
        terminal.shows("RUNNING 1")
        terminal.type("q")
        terminal.shows("left 0")
    finally:
        terminal.close()
    assert len(busy.recipes()) > 0


def test_a_run_is_cancelled_after_a_question(terminal: Terminal, busy: Analysis) -> None:
    terminal.type("j", "c")
    terminal.shows("Cancel lc run (day)", "y/n")
    terminal.type("n")
    terminal.hides("y/n")
    terminal.shows("lc run (day)")
    terminal.type("c")
    terminal.shows("Cancel lc run (day)", "y/n")
    terminal.type("y")
    terminal.shows("is asked to end")
    assert busy.box.lc("wait", "day", check=130).returncode == 130
    terminal.hides("baseline/queued")
    terminal.shows("RUNS 1")


def test_the_end_of_the_session_ends_the_screen(sandbox: Sandbox, outer: Server) -> None:
    sandbox.start()
    terminal = Terminal(sandbox, outer)
    try:
        terminal.run("session", "top")
        terminal.shows("RUNNING 0")
        sandbox.lc("session", "stop")
        terminal.shows("ended, stopped by 'lc session stop'", "left 0")
    finally:
        terminal.close()


def test_what_is_done_together_is_shown_one_by_one(sandbox: Sandbox) -> None:
    analysis = Analysis(sandbox)
    count = 90
    names = [f"o{number}" for number in range(count)]
    recipe = "until [ -e $PLACE/gate ]; do sleep 0.05; done; echo it > {output}"
    analysis.spec(*(output(name, recipe) for name in names))
    analysis.run("--detach")

    def all_shown() -> bool:
        told = _look(analysis)
        shown = [row["name"] for part in ("running", "waiting") for row in told[part]]
        counted = told["running_count"] + told["waiting_count"]
        return sorted(shown) == sorted(f"baseline/{name}" for name in names) and counted == count

    wait_until(lambda: _look(analysis)["running_count"], "the first ones run")
    wait_until(all_shown, "every output is shown, once")
    analysis.open("gate")
    sandbox.lc("wait")
    assert _look(analysis)["running_count"] == 0
    analysis.close()
    sandbox.lc("session", "stop")
