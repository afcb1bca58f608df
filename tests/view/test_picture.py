"""The picture of a session: pure functions of what there is to see and what was chosen."""

from __future__ import annotations

import codecs
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lightcone.view.choice import Action, Choice, Mode, press, rows
from lightcone.view.keys import decode
from lightcone.view.picture import clean, draw, draw_log, plain

_GIB = 1 << 30


def _running(name: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "id": f"r-{name}",
        "name": name,
        "run": "lc run (night), pid 4211",
        "run_id": "r",
        "host": "laptop",
        "seconds": seconds,
        "cpus": 2.0,
        "memory": 0,
        "gpus": 0,
        "cpus_used": 1.9,
        "memory_used": 300 << 20,
        "log": "/p/log.txt",
    } | more


def _waiting(name: str, why: str) -> dict[str, Any]:
    return {"id": f"w-{name}", "name": name, "run": "lc run, pid 7", "run_id": "q", "why": why}


def _seen(**more: Any) -> dict[str, Any]:
    worker = {"host": "laptop", "cpus": 8.0, "memory": 24 * _GIB, "gpus": 0}
    worker |= {"cpus_used": 5.7, "memory_used": 3 * _GIB}
    worker |= {"cpus_taken": 7.0, "memory_taken": 0, "gpus_taken": 0, "running": 2}
    failure = {"id": "f", "name": "with-sun/sampler", "run": "", "reason": "exit code 3"}
    return {
        "name": "lc-hubble-4f5328b7",
        "started": "2026-11-22T12:47:03+00:00",
        "at": "2026-11-22T12:59:03+00:00",
        "idle": False,
        "leases": [],
        "workers": [worker],
        "running": [_running("with-sun/fit", 61.0), _running("with-sun/diagram", 754.0)],
        "running_count": 2,
        "waiting": [_waiting("without-sun/fit", "for 4 cpus, 1 free")],
        "waiting_count": 1,
        "failures": [failure | {"at": "2026-11-22T12:51:03+00:00", "log": "/p/old.txt"}],
        "runs": [
            {
                "id": "r",
                "name": "lc run (night), pid 4211",
                "label": "night",
                "pid": 4211,
                "seconds": 760.0,
                "total": 12,
                "counts": {"made": 5, "failed": 1},
            }
        ],
        "other_tasks": 0,
    } | more


def _text(seen: dict[str, Any], width: int = 80, height: int = 24, **more: Any) -> str:
    return "\n".join(line.plain for line in draw(seen, width, height, **more))


def test_it_says_everything_on_a_small_terminal() -> None:
    text = _text(_seen(), choice=Choice())
    for words in (
        "lc-hubble-4f5328b7",
        "up 12 min  in use",
        "WORKERS 1",
        "5.7 of 8",
        "3.0 GiB of 24.0 GiB",
        "RUNS 1",
        "lc run (night), pid 4211",
        "6 of 12, 1 failed",
        "RUNNING 2",
        "13 min",
        "WAITING 1",
        "for 4 cpus, 1 free",
        "FAILED 1",
        "exit code 3",
        "q leave",
    ):
        assert words in text


def test_titles_are_whole_on_a_narrow_terminal() -> None:
    text = _text(_seen(), 40, 8, choice=Choice())
    for words in ("WORKERS 1", "RUNS 1", "RUNNING 2", "WAITING 1", "FAILED 1"):
        assert words in text


@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(0, 100),
    st.text(max_size=30),
    st.booleans(),
)
def test_it_fits_whatever_there_is(
    width: int, height: int, many: int, name: str, choosing: bool
) -> None:
    seen = _seen(
        running=[_running(f"{name}{number}", 1.0) for number in range(many)],
        waiting=[_waiting(name, name * 5)] * 2,
        workers=[],
    )
    lines = draw(seen, width, height, Choice() if choosing else None)
    assert len(lines) == height
    assert {cell_len(line.plain) for line in lines} <= {width}


def test_what_is_chosen_is_in_view() -> None:
    names = [f"o{number:02}" for number in range(50)]
    seen = _seen(running=[_running(name, 100.0 - n) for n, name in enumerate(names)])
    for name in (names[0], names[25], names[49]):
        assert f" {name} " in _text(seen, choice=Choice(selected=f"r-{name}"))
    assert "shown)" in _text(seen)


def test_what_is_not_known_is_said() -> None:
    unknown = {"cpus_used": None, "memory_used": None}
    seen = _seen(running=[_running("fit", 1.0, **unknown)])
    seen["workers"][0] |= unknown
    text = _text(seen)
    assert "? of 8" in text
    assert "?/2" in text
    assert "no word from it for 12 s" in _text(seen, silent_seconds=12.0)
    assert "no worker at the moment" in _text(_seen(workers=[]))


def test_plain_text_has_all_of_it() -> None:
    seen = _seen(waiting=[_waiting(f"o{number}", "for " + "x" * 200) for number in range(50)])
    text = plain(seen)
    assert text.count("x" * 200) == 50
    assert text.isascii()


def test_nothing_obeyed_by_a_terminal_is_shown() -> None:
    assert clean("a\x1b[31mred\x1b[0m\x1b]0;title\x07b\rc\x9bd") == "aredbcd"
    entry = {"name": "fit", "log": "/p\x1b[2J\udcff/log.txt"}
    lines = draw_log(entry, ["one", "\x1b[2Jtwo"], 40, 10, 0)
    shown = "".join(line.plain for line in lines)
    assert "\x1b" not in shown
    assert "/p?/log.txt" in shown


def test_a_log_shows_its_end_and_what_is_above() -> None:
    entry = {"name": "fit", "log": "/p/log.txt"}
    log = [f"line {number}" for number in range(100)]

    def shown(back: int) -> list[str]:
        return [line.plain.strip() for line in draw_log(entry, log, 60, 12, back)][1:-1]

    assert shown(0) == log[-10:]
    assert shown(5) == log[-15:-5]
    assert shown(1000) == log[:10]


def _after(keys: list[str], seen: dict[str, Any]) -> tuple[Choice, Action | None]:
    choice, action = Choice(), None
    for key in keys:
        choice, action = press(choice, key, rows(seen, choice))
    return choice, action


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ([], "r-with-sun/diagram"),
        (["down"], "r-with-sun/fit"),
        (["j", "j"], "w-without-sun/fit"),
        (["j", "j", "k"], "r-with-sun/fit"),
        (["G"], "f"),
        (["end", "down", "up"], "w-without-sun/fit"),
        (["s"], "r-with-sun/diagram"),
        (["/", "f", "i", "t", "enter"], "r-with-sun/fit"),
        (["/", "x", "y", "z", "enter"], ""),
    ],
)
def test_keys_choose(keys: list[str], chosen: str) -> None:
    choice, action = _after(keys, _seen())
    assert action is None
    assert rows(_seen(), choice).selected == chosen


def test_keys_leave_ask_and_read() -> None:
    assert _after(["q"], _seen())[1] is Action.LEAVE
    assert _after(["/", "q"], _seen())[1] is None
    assert _after(["/", "ctrl-c"], _seen())[1] is Action.LEAVE
    assert _after(["enter"], _seen())[0].mode is Mode.LOG
    assert _after(["enter", "q"], _seen())[0].mode is Mode.CHOOSE
    assert "has not begun" in _after(["j", "j", "enter"], _seen())[0].note
    for key, asked in (("y", Action.CANCEL), ("n", None), ("c", None), ("enter", None)):
        choice, action = _after(["c", key], _seen())
        assert action is asked
        assert choice.mode is Mode.CHOOSE
    assert "is over" in _after(["G", "c"], _seen())[0].note
    assert _after(["c"], _seen(running=[], waiting=[], failures=[]))[0] == Choice()


def test_what_is_chosen_stays_chosen_while_others_come_and_go() -> None:
    seen = _seen()
    choice, _ = _after(["j"], seen)
    seen["running"] = [_running("new", 10_000.0), *seen["running"]]
    assert rows(seen, choice).selected == "r-with-sun/fit"
    assert rows(seen, replace(choice, filter="new")).selected == "r-new"


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("ignore")


@pytest.mark.parametrize(
    ("data", "keys", "rest"),
    [
        (b"jq", ["j", "q"], b""),
        (b"\x1b[A\x1bOB\x1b[5~", ["up", "down", "page up"], b""),
        (b"\x1b[1;5C\x1b[15~", [], b""),
        (b"\r\x7f\x03", ["enter", "backspace", "ctrl-c"], b""),
        (b"a\x1b", ["a"], b"\x1b"),
        (b"\x1b[", [], b"\x1b["),
        (b"\x1bq", ["escape", "q"], b""),
        ("ü".encode(), ["ü"], b""),
        (b"\x00\x1a\x1c", [], b""),
    ],
)
def test_keys_are_read(data: bytes, keys: list[str], rest: bytes) -> None:
    assert decode(data, _decoder()) == (keys, rest)


@given(st.binary(max_size=40))
def test_whatever_comes_is_read(data: bytes) -> None:
    keys, rest = decode(data, _decoder())
    assert all(keys)
    assert data.endswith(rest)
