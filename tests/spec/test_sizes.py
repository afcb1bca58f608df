"""Checking a spec of twice the size takes twice the calls, whatever is wrong with it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from lightcone.errors import SpecError
from lightcone.project.settings import Settings
from lightcone.spec.outputs import load_outputs
from tests.projects import Project

_OUTPUT = "{{id: o{0}, recipe: {{command: 'echo > {{output}}'}}{1}}}"
_DECISION = "d{0}: {{options: {{a: {{}}, b: {{}}}}{1}}}"


def _outputs(size: int, rest: Callable[[int], str] = lambda number: "") -> str:
    entries = ", ".join(_OUTPUT.format(number, rest(number)) for number in range(size))
    return f"outputs: [{entries}]\n"


def _decisions(size: int, rest: Callable[[int], str] = lambda number: "") -> str:
    entries = ", ".join(_DECISION.format(number, rest(number)) for number in range(size))
    return f"decisions: {{{entries}}}\n"


def _nested(size: int) -> str:
    """A chain of conditions in each of ten sub-analyses, one in the other."""
    links = _decisions(
        size // 10,
        lambda number: ", default: a" + (f", when: d{number - 1}.a" if number else ""),
    ).strip()
    text = _outputs(1).strip()
    for _ in range(10):
        text = f"{links}, analyses: {{deep: {{{text}}}}}"
    return f"{{{text}}}"


SPECS: dict[str, Callable[[int], str]] = {
    "one unknown key": lambda size: _outputs(size, lambda _: ", zzz: 1"),
    "many unknown keys": lambda size: _outputs(size, lambda number: f", zzz{number}: 1"),
    "decisions without an option": lambda size: _decisions(size) + _outputs(1),
    "an unknown decision": lambda size: (
        _decisions(size, lambda _: ", default: a") + _outputs(1, lambda _: ", decisions: [dd]")
    ),
    "a chain of conditions": lambda size: (
        _decisions(
            size, lambda number: ", default: a" + (f", when: d{number - 1}.a" if number else "")
        )
        + _outputs(1)
    ),
    "nested conditions": _nested,
    "dangling re-exports": lambda size: (
        f"outputs: [{', '.join(f'{{id: o{number}, from: part.x}}' for number in range(size))}]\n"
        "analyses: {part: {}}\n"
    ),
}


@contextlib.contextmanager
def _counting() -> Iterator[list[int]]:
    calls = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("name", SPECS)
def test_the_work_grows_with_the_size(name: str, project: Project) -> None:
    counts = []
    for size in (10, 200, 400):  # The first imports what is needed.
        project.spec(SPECS[name](size))
        with _counting() as calls, contextlib.suppress(SpecError):
            load_outputs(project.root, Settings(), warnings=[])
        counts.append(calls[0])
    assert counts[2] < 2.3 * counts[1]


def test_lists_in_messages_are_cut_short(project: Project) -> None:
    options = ", ".join(f"a{number}: {{}}" for number in range(12))
    project.spec(
        f"decisions: {{cut: {{default: zzz, options: {{{options}}}}}}}\n"
        + _outputs(1, lambda _: ", decisions: [cut]")
    )
    with pytest.raises(SpecError) as caught:
        project.outputs()
    assert str(caught.value).endswith(
        "choose one of a0, a1, a2, a3, a4, a5, a6, a7, a8, a9 and 2 more."
    )
