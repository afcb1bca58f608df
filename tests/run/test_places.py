"""Results that lie elsewhere: behind links, on file systems of their own, on mount points."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Sandbox
from tests.run.analyses import Analysis, output, succeed, told_of_waiting
from tests.run.disks import bound, mounted

_SAYS = 'echo "$SAYS" > {output}; exit "${{CODE-0}}"'


@pytest.fixture
def disk(shared: Sandbox) -> Iterator[Path]:
    """A file system of its own, outside the project."""
    place = shared.base / "disk"
    place.mkdir(exist_ok=True)
    with mounted(place, "4m"):
        yield place


@pytest.mark.parametrize("link", ["results", "results/baseline"])
def test_results_behind_a_link_to_another_file_system(
    analysis: Analysis, disk: Path, link: str
) -> None:
    analysis.spec(
        output("x", _SAYS),
        output("tree", "cat {inputs.x} > {output}", ("x",)),
    )
    there = disk / "of this project" / "results"
    there.mkdir(parents=True)
    (analysis.root / link).parent.mkdir(exist_ok=True)
    (analysis.root / link).symlink_to(there)
    analysis.run(env={"SAYS": "one"})
    assert analysis.text("tree") == "one\n"
    assert next(there.rglob("x.txt")).read_text() == "one\n"
    assert (analysis.root / link).is_symlink()
    assert analysis.summary()["up_to_date"] == 2
    analysis.run("-f", check=1, env={"SAYS": "two", "CODE": "3"})
    assert analysis.text("x") == "one\n"
    assert analysis.states() == {"x": "ok", "tree": "ok"}
    analysis.run("-f", env={"SAYS": "three"})
    assert analysis.text("tree") == "three\n"
    assert analysis.leftovers() == []
    assert analysis.box.lc("verify").returncode == 0
    assert "three" in analysis.text("x")
    analysis.close()


def test_link_to_results_that_are_not_there(analysis: Analysis) -> None:
    analysis.spec(output("x", _SAYS))
    (analysis.root / "results").symlink_to(analysis.place / "unmounted")
    refused = analysis.run(check=2)
    assert refused.stdout == ""
    link, target = analysis.root / "results", analysis.place / "unmounted"
    assert refused.stderr == (
        f"lc: {link} is a link to {target}, which is not there: make that directory, or mount its "
        "disk, and run again.\n"
    )


def test_results_on_a_disk_of_their_own(analysis: Analysis) -> None:
    analysis.spec(output("x", _SAYS))
    results = analysis.root / "results"
    results.mkdir()
    with mounted(results):
        analysis.run(env={"SAYS": "one"})
        analysis.run("-f", env={"SAYS": "two"})
        assert analysis.text("x") == "two\n"
    results.rmdir()


def _refused(analysis: Analysis, what: str, *options: str) -> None:
    told = analysis.run(*options, check=1, env={"SAYS": "two"})
    assert told.stderr == ""
    assert f"baseline/x: FAILED, {what}" in told.stdout
    assert analysis.made() == []
    assert analysis.leftovers() == []


@pytest.mark.parametrize("kind", ["disk", "bind"])
def test_output_that_is_a_mount_point_is_left_alone(analysis: Analysis, kind: str) -> None:
    analysis.spec(output("x", 'echo "$SAYS" > {output}/file', suffix=""))
    path = analysis.path("x", suffix="")
    path.mkdir(parents=True)
    elsewhere = analysis.place / "elsewhere"
    elsewhere.mkdir()
    with mounted(path) if kind == "disk" else bound(elsewhere, path):
        (path / "mine").write_text("precious")
        for _ in range(2):
            _refused(
                analysis,
                f"{path} is a mount point, and what is there could not be set aside meanwhile: "
                "unmount it, or mount a directory around the results instead\n",
            )
            assert [each.name for each in path.iterdir()] == ["mine"]
        assert (path / "mine").read_text() == "precious"
    assert analysis.run(env={"SAYS": "two"}).stderr == ""


def test_mount_point_inside_an_output_is_left_alone(analysis: Analysis) -> None:
    analysis.spec(output("x", 'echo "$SAYS" > {output}/file', suffix=""))
    analysis.run(env={"SAYS": "one"})
    analysis.made()
    path = analysis.path("x", suffix="")
    inside = path / "with space"
    inside.mkdir()
    with mounted(inside):
        (inside / "mine").write_text("precious")
        _refused(analysis, f"{inside} is a mount point, and what")
        assert (inside / "mine").read_text() == "precious"
        assert (path / "file").read_text() == "one\n"
    inside.rmdir()
    assert analysis.summary()["up_to_date"] == 1


def test_file_that_is_a_mount_point_is_left_alone(analysis: Analysis) -> None:
    analysis.spec(output("x", _SAYS))
    analysis.run(env={"SAYS": "one"})
    analysis.made()
    path, elsewhere = analysis.path("x"), analysis.place / "elsewhere"
    elsewhere.write_text("precious")
    with bound(elsewhere, path):
        _refused(analysis, f"{path} is a mount point, and what")
        assert elsewhere.read_text() == path.read_text() == "precious"
    assert analysis.text("x") == "one\n"
    assert analysis.summary()["up_to_date"] == 1


def test_output_that_is_a_link_to_another_file_system(analysis: Analysis, disk: Path) -> None:
    """The link is the result that is set aside; what it leads to is nobody's but the user's."""
    analysis.spec(output("x", _SAYS))
    target = disk / "x.txt"
    target.write_text("precious")
    analysis.path("x").parent.mkdir(parents=True)
    analysis.path("x").symlink_to(target)
    analysis.run(check=1, env={"SAYS": "two", "CODE": "3"})
    assert (os.readlink(analysis.path("x")), target.read_text()) == (str(target), "precious")
    analysis.run(env={"SAYS": "two"})
    assert not analysis.path("x").is_symlink()
    assert (analysis.text("x"), target.read_text()) == ("two\n", "precious")
    analysis.run("-f", env={"SAYS": "three"})
    assert target.read_text() == "precious"
    analysis.close()


def test_recipe_that_makes_a_link_to_another_file_system(analysis: Analysis, disk: Path) -> None:
    analysis.spec(
        output("x", f'echo "$SAYS" > {disk}/large; ln -s {disk}/large {{output}}; exit $CODE'),
        output("after", "cat {inputs.x} > {output}", ("x",)),
    )
    analysis.run(env={"SAYS": "one", "CODE": "0"})
    assert analysis.text("after") == "one\n"
    assert analysis.summary()["up_to_date"] == 2
    (disk / "large").write_text("tampered\n")
    assert analysis.states()["x"] == "stale"
    analysis.run(env={"SAYS": "two", "CODE": "0"})
    assert analysis.text("after") == "two\n"
    analysis.close()


def test_same_output_through_a_link_and_without_one_has_one_writer(analysis: Analysis) -> None:
    waits = 'touch "$PLACE/begun"; until [ -e "$PLACE/gate" ]; do sleep 0.05; done; '
    alone = 'mkdir "$PLACE/guard"; ' + waits + 'rmdir "$PLACE/guard"; '
    analysis.spec(output("x", alone + "echo 1 > {output}"))
    there = analysis.place / "elsewhere"
    there.mkdir()
    (analysis.root / "results").symlink_to(there)
    first = analysis.begin()
    analysis.began("begun")
    (analysis.root / "results").unlink()
    (analysis.root / "results").symlink_to("../place/elsewhere")
    second = analysis.begin()
    assert "waiting for lc run" in told_of_waiting(second)
    analysis.open("gate")
    succeed(first, second)
    assert analysis.made() == ["x"]
