"""Another user has been where our directories are to be: he gains nothing, and is told of."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightcone.project.context import current_context
from tests.security.users import Owned, Stranger, User, default_places

_CANARY = "canary-of-the-caller-77ab01"
_VERBS = (
    ("session", "start"),
    ("session", "status"),
    ("session", "stop"),
    ("session", "attach"),
    ("session", "logs"),
    ("session", "list"),
    ("run",),
    ("exec", "--", "true"),
)


@pytest.fixture
def victim(unprivileged: User) -> Iterator[Owned]:
    """A user with a project, who has set nothing."""
    box = Owned(unprivileged)
    box.use_default_places()
    box.env["CALLERS_TOKEN"] = _CANARY
    try:
        yield box
    finally:
        for place in default_places(box.uid):
            _remove_unless_of(place, box.uid)
        try:
            box.close()
        finally:
            for place in default_places(box.uid):
                shutil.rmtree(place, ignore_errors=True)


def _remove_unless_of(place: Path, uid: int) -> None:
    if place.is_dir() and not place.is_symlink():
        if place.stat().st_uid != uid:
            shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _give(path: Path, uid: int) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, uid, uid, follow_symlinks=False)


def _directory(place: Path, owner: Stranger, mode: int) -> None:
    place.mkdir()
    _give(place, owner.uid)
    place.chmod(mode)


def _link(place: Path, owner: Stranger, target: Path) -> None:
    place.symlink_to(target)
    _give(place, owner.uid)


def _file(place: Path, owner: Stranger) -> None:
    place.touch()
    _give(place, owner.uid)


_PLANTS: dict[str, Callable[[Path, Stranger, Owned], None]] = {
    "his, closed": lambda place, he, _: _directory(place, he, 0o700),
    "his, open to all": lambda place, he, _: _directory(place, he, 0o777),
    "a link to his": lambda place, he, _: _link(place, he, he.home),
    "a link to ours": lambda place, he, box: _link(place, he, box.home),
    "a link to nothing": lambda place, he, box: _link(place, he, box.home / "new"),
    "a file": lambda place, he, _: _file(place, he),
}


@pytest.mark.parametrize("which", [0, 1], ids=["sockets", "scratch"])
@pytest.mark.parametrize("plant", _PLANTS)
def test_place_that_somebody_made_first(
    victim: Owned, stranger: Stranger, plant: str, which: int
) -> None:
    place = default_places(victim.uid)[which]
    _PLANTS[plant](place, stranger, victim)
    before = _list(victim.home, stranger.home, place)
    variable = ("LIGHTCONE_RUNTIME_DIR", "LIGHTCONE_SCRATCH")[which]
    for verb in (("session", "start"), ("session", "status"), ("run",)):
        result = victim.lc(*verb, check=3)
        assert f"set {variable} to a " in result.stderr
        assert str(place) in result.stderr
    assert _list(victim.home, stranger.home, place) == before


def test_what_is_told_of_helps(victim: Owned, stranger: Stranger) -> None:
    own = {}
    for place, name in zip(default_places(victim.uid), ("RUNTIME_DIR", "SCRATCH"), strict=True):
        _directory(place, stranger, 0o755)
        own[f"LIGHTCONE_{name}"] = str(victim.base / name)
    victim.lc("session", "start", env=own)
    victim.lc("session", "stop", env=own)


def _list(*places: Path) -> list[Path]:
    return sorted(path for place in places if place.is_dir() for path in place.rglob("*"))


@pytest.fixture
def trap(victim: Owned, stranger: Stranger) -> Iterator[None]:
    """What looks like a living session of the victim's, with sockets that nobody may talk to."""
    place, scratch = default_places(victim.uid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getuid", lambda: victim.uid)
        context = current_context(victim.project)
    assert context.runtime.parent == place
    context.runtime.mkdir(parents=True)
    context.state.mkdir(parents=True)
    (context.state / "logs").mkdir()
    (context.state / "logs" / "scheduler.log").write_text("\x1b]0;his words\x07")
    ended = {"reason": "his words", "at": "2020-01-01T00:00:00+00:00"}
    context.record.write_text(json.dumps({"ended": ended}))
    listeners = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for listener, path in zip(
        listeners, (context.control_socket, context.tmux_socket), strict=True
    ):
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o777)
        listener.setblocking(False)
    for each in (place, scratch):
        _give(each, stranger.uid)
        each.chmod(0o755)
    yield
    for listener in listeners:
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.close()
    shutil.rmtree(place)
    shutil.rmtree(scratch)


@pytest.mark.parametrize("verb", _VERBS, ids=" ".join)
def test_nobody_talks_to_a_planted_session(
    victim: Owned, trap: Path, verb: tuple[str, ...]
) -> None:
    result = victim.lc(*verb, check=125 if verb[0] == "exec" else 3)
    assert "belongs to another user: set LIGHTCONE_" in result.stderr
    assert "his words" not in result.stdout + result.stderr


@pytest.mark.parametrize("verb", ["status", "stop", "attach"])
def test_no_way_through_links_in_a_planted_directory(
    victim: Owned, stranger: Stranger, verb: str
) -> None:
    """Links would have us remove what is called like our sockets, or take another for ours."""
    precious = victim.base / "precious"
    precious.mkdir()
    for name in ("control", "tmux"):
        (precious / name).touch()
    _give(precious, victim.uid)
    (default_places(victim.uid)[1]).mkdir(mode=0o700)
    _give(default_places(victim.uid)[1], victim.uid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getuid", lambda: victim.uid)
        context = current_context(victim.project)
    context.state.mkdir(parents=True)
    _give(default_places(victim.uid)[1], victim.uid)
    context.runtime.parent.mkdir()
    context.runtime.symlink_to(precious)
    _give(context.runtime.parent, stranger.uid)
    victim.lc("session", verb, check=3)
    assert len(list(precious.iterdir())) == 2


def test_default_places_work_where_nobody_was_before(victim: Owned) -> None:
    victim.start()
    assert victim.lc("exec", "--", "id", "-u").stdout == f"{victim.uid}\n"
    sockets, scratch = default_places(victim.uid)
    for path in (sockets, *sockets.iterdir(), scratch, *scratch.iterdir()):
        assert path.stat().st_mode & 0o7777 == 0o700
        assert path.stat().st_uid == victim.uid


def test_project_that_lies_in_wait_above_is_not_used(victim: Owned, stranger: Stranger) -> None:
    """As in /tmp, where anybody could put a spec for those who run 'lc' below."""
    shared = victim.base / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    below = shared / "mine"
    below.mkdir()
    _give(below, victim.uid)
    spec = shared / "astra.yaml"
    spec.write_text((victim.project / "astra.yaml").read_text())
    os.chown(spec, stranger.uid, stranger.uid)
    result = victim.lc("run", cwd=below, check=2)
    assert "astra.yaml belongs to another user and all users may write there" in result.stderr
    assert not (shared / "results").exists()
