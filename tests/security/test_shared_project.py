"""A project that several make outputs in, who do not see each other's locks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightcone.state.claims import Busy, Claim, holder, is_interrupted
from tests.helpers import Sandbox, wait_until
from tests.needs import do_without
from tests.projects import Project
from tests.security.interpreter import Interpreter
from tests.security.users import Owned, User, as_user, spare_user

_SPEC = """\
version: "0.0.14"
name: shared
inputs: []
outputs:
  - id: x
    type: data
    format: txt
    recipe:
      command: >-
        echo half > {{output}}; touch {place}/begun;
        until [ -e {place}/gate ]; do sleep 0.05; done; echo whole > {{output}}
"""


class _Member(Owned):
    """A user of a group that shares a project; what he makes is the group's too."""

    def __init__(self, user: User, group: int) -> None:
        super().__init__(user)
        self.owner = {**as_user(self.uid), "extra_groups": [group], "umask": 0o002}
        for place in (self.runtime, self.scratch):
            place.chmod(0o700)

    def share(self, project: Path) -> None:
        """Work in another one's project."""
        self.projects.append(project)
        self.project = project

    def why(self) -> tuple[str, str]:
        """What ``lc status`` says of the output: its state, and why."""
        (found,) = json.loads(self.lc("status", "--json").stdout)["outputs"]
        return found["state"], found["why"]


@pytest.fixture
def members(python: Interpreter) -> Iterator[tuple[_Member, _Member, Path]]:
    """Two users, and a project of both whose recipe waits; and where it says that it does."""
    group = spare_user(7)
    boxes: list[_Member] = []
    try:
        for nth in (5, 6):
            boxes.append(_Member(User(spare_user(nth), python), group))
        first, second = boxes
        place = first.base / "place"
        place.mkdir()
        (first.project / "astra.yaml").write_text(_SPEC.format(place=place))
        for path in (place, first.project, *first.project.rglob("*")):
            os.chown(path, first.uid, group)
            path.chmod(0o2775 if path.is_dir() else 0o664)
        place.chmod(0o2777)
        second.share(first.project)
        yield first, second, place
    finally:
        for box in reversed(boxes):
            box.close()


def _begin(box: Sandbox, place: Path) -> subprocess.Popen[bytes]:
    run = box.popen("run")
    begun = place / "begun"
    wait_until(lambda: begun.exists() or run.poll() is not None, "the recipe has begun")
    assert begun.exists(), run.communicate()
    return run


def test_recipe_of_another_user_is_left_alone(members: tuple[_Member, _Member, Path]) -> None:
    """His lock is below a directory that only he can enter: it is not gone, but not to be seen."""
    first, second, place = members
    run = _begin(first, place)
    path = first.project / "results/baseline/x.txt"
    state, why = second.why()
    assert state == "running"
    assert "as its lock cannot be reached from here (Permission denied)" in why
    assert "baseline/x: left alone, in use by lc run, pid " in second.lc("clean").stdout
    assert path.read_text() == "half\n"
    other = second.popen("run")
    assert other.stdout is not None
    lines = (line.decode() for line in iter(other.stdout.readline, b""))
    waiting = next(line for line in lines if line.startswith("baseline/x: waiting for "))
    assert "Permission denied" in waiting
    assert path.read_text() == "half\n"
    (place / "gate").touch()
    assert (run.wait(timeout=60), other.wait(timeout=60)) == (0, 0)
    assert path.read_text() == "whole\n"
    assert second.why() == first.why() == ("ok", "")


def test_recipe_in_results_that_others_may_not_enter_is_left_alone(
    members: tuple[_Member, _Member, Path],
) -> None:
    first, second, place = members
    run = _begin(first, place)
    kept = first.project / "results/baseline/.lightcone"
    mode = kept.stat().st_mode
    kept.chmod(0o700)
    state, why = second.why()
    assert (state, "which cannot be read (Permission denied)" in why) == ("running", True)
    refused = f"{kept / 'x'}: Permission denied"
    assert second.lc("clean", check=1).stderr == f"baseline/x: left alone: {refused}\n"
    assert "cannot be written (Permission denied)" in second.lc("run", check=2).stderr
    assert (first.project / "results/baseline/x.txt").read_text() == "half\n"
    kept.chmod(mode)
    (place / "gate").touch()
    assert run.wait(timeout=60) == 0


_HOLDER = """\
import os, sys
from pathlib import Path
from lightcone.state.claims import Claim
from tests.projects import Project

claim = Claim.take(Project(Path(sys.argv[1])).output("x"), Path(sys.argv[2]))
claim.set_aside("lc run, pid 1", 0o022, "identity")
claim.output.path.write_text("half")
print("begun", flush=True)
sys.stdin.readline()
"""
# The same path, another directory; as of a private /tmp.
_PRIVATE = 'mount -t tmpfs none "$1" && mkdir -m 700 "$2" && shift 2 && exec "$@"'


@pytest.mark.parametrize("also", [[], ["--uts"]], ids=["one host", "a container's names"])
@pytest.mark.parametrize("seen", ["no scratch", "a scratch of one's own"])
def test_recipe_in_another_mount_namespace_is_left_alone(
    project: Project, tmp_path: Path, also: list[str], seen: str
) -> None:
    """One user, one path of the scratch directory, and two directories at it."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        do_without("only root can make mount namespaces, with unshare")
    project.spec(_SPEC.format(place=tmp_path))
    output = project.output("x")
    output.path.parent.mkdir(parents=True)
    output.path.write_text("old")
    scratch, claims = tmp_path / "scratch", tmp_path / "scratch/claims"
    scratch.mkdir()
    if seen != "no scratch":
        # As it is after a recipe of our own: a lock of the same name, and free.
        claim = Claim.take(output, claims)
        assert isinstance(claim, Claim)
        claim.release()
    places = [str(scratch), str(claims)]
    namespace = ["unshare", "--mount", *also, "--propagation", "private"]
    program = [sys.executable, "-c", _HOLDER, str(project.root), str(claims)]
    holding = subprocess.Popen(
        [*namespace, "sh", "-c", _PRIVATE, "sh", *places, *program],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holding.stdout is not None
        if holding.stdout.readline() != b"begun\n":
            do_without("nothing can be mounted in a namespace here")
        assert [path.name for path in scratch.iterdir()] == ["claims"] * (seen != "no scratch")
        for _ in range(2):
            found = holder(output)
            assert found is not None and "whose end is unknown, as its lock " in found.by
            busy: Any = Claim.take(output, claims)
            assert isinstance(busy, Busy) and busy.lock is None
            assert output.path.read_text() == "half"
            assert (output.state_dir / "previous/output").read_text() == "old"
    finally:
        holding.kill()
        holding.communicate()
    # Its end, too, is not to be seen from here.
    assert holder(output) is not None
    # Removing the journal, as the message says, loses nothing.
    (output.state_dir / "journal.json").unlink()
    assert not is_interrupted(output)
    claim = Claim.take(output, claims)
    assert isinstance(claim, Claim)
    claim.release()
    assert output.path.read_text() == "old"
    assert (output.state_dir / "partial").read_text() == "half"
