"""A command's output as lines: whole, readable, and no more than can be looked at."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.worker.execution import LineStream


class Heard:
    """What a stream passed on."""

    def __init__(self, kept: int = 20) -> None:
        self.pieces: list[list[str]] = []
        self.tail: deque[str] = deque(maxlen=kept)
        self.stream = LineStream(self.pieces.append, self.tail)

    @property
    def lines(self) -> list[str]:
        return [line for piece in self.pieces for line in piece]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_lines_do_not_depend_on_how_the_bytes_came(data: bytes, cuts: list[int]) -> None:
    whole, parts = Heard(1000), Heard(1000)
    whole.stream.feed(data)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for begin, end in pairwise(edges):
        parts.stream.feed(data[begin:end])
    for heard in (whole, parts):
        heard.stream.finish()
    assert whole.lines == parts.lines == list(whole.tail) == list(parts.tail)
    assert not any("\n" in line for line in whole.lines)


def test_line_is_passed_on_when_it_is_whole() -> None:
    heard = Heard()
    heard.stream.feed(b"one\ntw")
    assert heard.lines == ["one"]
    heard.stream.feed(b"o\r\n\nthree")
    assert heard.lines == ["one", "two", ""]
    heard.stream.finish()
    assert heard.lines == ["one", "two", "", "three"]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"10 %\r20 %\r100 %\n", ["100 %"]),
        (b"10 %\r20 %\r\n", ["20 %"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        ("é ✓\n".encode(), ["é ✓"]),
        (b"x" * 10_000 + b"\n", ["x" * 4096]),
    ],
)
def test_what_is_shown_of_a_line(data: bytes, lines: list[str]) -> None:
    heard = Heard()
    heard.stream.feed(data)
    heard.stream.finish()
    assert heard.lines == lines


def test_line_without_an_end_is_passed_on_in_pieces() -> None:
    heard = Heard()
    for _ in range(10):
        heard.stream.feed(b"x" * 1000)
    assert [len(line) for line in heard.lines] == [4096, 4096]


def test_flood_is_cut_and_told_of_while_its_end_is_kept() -> None:
    heard = Heard()
    line = b"x" * 99 + b"\n"
    for _ in range(100):
        heard.stream.feed(line * 1000)
    heard.stream.feed(b"last\n")
    heard.stream.finish()
    shown = sum(len(text) for text in heard.lines)
    assert shown < 2_000_000
    notes = [text for text in heard.lines if text.startswith("[")]
    assert notes
    assert all(text.endswith(" lines not shown: they are in the log]") for text in notes)
    hidden = sum(int(text[1:].partition(" ")[0]) for text in notes)
    assert hidden + len(heard.lines) - len(notes) == 100_001
    assert list(heard.tail) == ["x" * 99] * 19 + ["last"]
