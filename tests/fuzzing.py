"""Bad files: contents that nobody meant, and things that lie where a file should."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from lightcone.errors import LightconeError
from lightcone.system.files import remove

__all__ = ["SOAKED", "THINGS", "bad", "bad_json", "examples", "fails_well", "odd"]

# `make soak` asks for more.
_TIMES = float(os.environ.get("FUZZ_TIMES", "1"))
SOAKED = _TIMES > 1
"""Whether there is time for more than a taste."""
_DEEP = (100, 400, 950, 3000, 100_000)
_ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2,
    2**31,
    2**63,
    10**400,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    1e308,
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "\udcff",
    "é\n\x1b[31m",
    "x" * 5000,
    "..",
    "../../../../etc",
    "/",
    "~nobody-of-that-name/x",
    "$HOME",
    "*",
    "**/[",
    "{",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    [],
    {},
    [[]],
    {"": {}},
]
odd = st.sampled_from(_ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
"""Values that a parser gives and nobody expects."""


def examples(number: int) -> settings:
    """So many examples, or as many times more as the soak asks for; each on files of its own."""
    return settings(max_examples=max(1, round(number * _TIMES)))


def bad(good: bytes) -> st.SearchStrategy[bytes]:
    """Contents of a file that should be like ``good``: random, cut off, with bits changed, deep."""
    places = st.integers(0, max(0, len(good) - 1))
    return st.one_of(
        st.binary(max_size=200),
        places.map(lambda place: good[:place]),
        st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=5).map(
            lambda flips: _flipped(good, flips)
        ),
        st.tuples(places, st.binary(max_size=9)).map(
            lambda given: good[: given[0]] + given[1] + good[given[0] :]
        ),
        st.tuples(st.sampled_from([b"[", b'{"a":', b"- ", b"a = [", b"a:\n "]), _depths).map(
            lambda given: given[0] * given[1]
        ),
    )


_depths = st.sampled_from(_DEEP)


def bad_json(good: bytes) -> st.SearchStrategy[bytes]:
    """The same, and JSON of another shape: a value changed, gone or nested deeply; or no object."""
    return st.one_of(
        bad(good),
        odd.map(_dump),
        _changed(good),
        _changed(good),
        _deepened(good),
    )


def _flipped(content: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, bits in flips:
        if changed:
            changed[place] ^= bits
    return bytes(changed)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def _changed(draw: st.DrawFn, good: bytes) -> bytes:
    table = json.loads(good)
    for _ in range(draw(st.integers(1, 2))):
        place, key = _some_place(table, draw)
        if draw(st.integers(0, 4)):
            # A copy: what is drawn is the same object each time, and is changed in its turn.
            place[key] = copy.deepcopy(draw(odd))
        else:
            del place[key]
        if not table:
            break
    return _dump(table)


@st.composite
def _deepened(draw: st.DrawFn, good: bytes) -> bytes:
    """Nested so deeply that what reads it may do without, and what writes it again may not."""
    table = json.loads(good)
    place, key = _some_place(table, draw)
    place[key] = "HERE"
    left, right = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
    depth = draw(_depths)
    middle = left * depth + "1" + right * depth
    return _dump(table).replace(b'"HERE"', middle.encode())


def _some_place(table: Any, draw: st.DrawFn) -> tuple[Any, Any]:
    place = table
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key: Any = draw(st.sampled_from(list(keys)))
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner and draw(st.booleans())):
            return place, key
        place = inner


def fails_well(call: Callable[[], object]) -> object:
    """What ``call`` returns, or the one sentence with which it refuses, as an error."""
    try:
        return call()
    except LightconeError as error:
        sentence = str(error)
        assert sentence.endswith((".", "?")), sentence
        assert "\n" not in sentence.encode("unicode_escape").decode(), sentence
        assert "Traceback" not in sentence, sentence
        return error


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("{}")


def _socket(path: Path) -> None:
    # Bound from beside it, as the name of a socket has to be short.
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


def _unreadable(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0)


_MAKERS: dict[str, Callable[[Path], object]] = {
    "directory": _directory,
    "pipe": os.mkfifo,
    "socket": _socket,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to all there is": lambda path: path.symlink_to("/dev/zero"),
    "unreadable file": _unreadable,
    "empty file": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(1 << 16)),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x80" * 100),
    "brackets": lambda path: path.write_bytes(b"[" * 200_000),
    "a list": lambda path: path.write_bytes(b"[1, 2]"),
    "a large number": lambda path: path.write_bytes(b"9" * 10_000),
}


def _put(kind: str) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        if os.path.lexists(path):
            remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _MAKERS[kind](path)

    return put


THINGS: dict[str, Callable[[Path], None]] = {kind: _put(kind) for kind in _MAKERS}
"""What can lie in the place of a file, and how it is put there."""
