"""Which context a call is in, and where its files are."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from lightcone.errors import SessionError, SettingsError, SpecError
from lightcone.project.context import allocation_file, current_context, find_root
from lightcone.project.host import boot_id
from lightcone.project.settings import Settings
from lightcone.slurm import jobs
from lightcone.slurm.allocation_file import ALLOCATION_VERSION, live_allocation, read_allocation
from tests.helpers import Sandbox


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "project"
    root.mkdir()
    (root / "astra.yaml").write_text("name: x\n")
    return root


def test_root_is_the_nearest_directory_with_a_spec(project: Path) -> None:
    inner = project / "sub" / "inner"
    inner.mkdir(parents=True)
    assert find_root(project) == project
    assert find_root(inner) == project
    (project / "sub" / "astra.yaml").touch()
    assert find_root(inner) == project / "sub"


def test_a_spec_that_is_a_link_to_nothing_is_not_passed_over(project: Path) -> None:
    inner = project / "sub"
    inner.mkdir()
    (inner / "astra.yaml").symlink_to("gone.yaml")
    with pytest.raises(SpecError) as caught:
        find_root(inner)
    assert str(caught.value) == (
        f"{inner}/astra.yaml is a link to 'gone.yaml', which is no file: restore that, or remove "
        "the link."
    )


def test_root_is_a_real_path(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(project)
    assert find_root(link) == project


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=f"no astra.yaml in {tmp_path.resolve()} or above it: go to"
    ):
        find_root(tmp_path)
    (tmp_path / "astra.yaml").mkdir()
    with pytest.raises(SpecError):
        find_root(tmp_path)


def test_key_belongs_to_the_real_path(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(project)
    other = tmp_path / "other"
    other.mkdir()
    (other / "astra.yaml").touch()
    assert re.fullmatch("[0-9a-f]{8}", current_context(project).key)
    assert current_context(link).key == current_context(project).key
    assert current_context(other).key != current_context(project).key
    assert current_context(project).kind == "project"


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("plain", "plain"),
        ("with space.and:colon", "with-space-and-colon"),
        ("ünïcödé", "n-c-d"),
        ("...", "root"),
        ("x" * 100, "x" * 40),
    ],
)
def test_name_is_one_that_any_terminal_server_takes(
    tmp_path: Path, directory: str, name: str
) -> None:
    root = tmp_path / directory
    root.mkdir()
    (root / "astra.yaml").touch()
    context = current_context(root)
    assert context.name == f"lc-{name}-{context.key}"


def test_working_directory_is_where_a_call_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert current_context() == current_context(project)


def test_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SpecError, match="no longer exists"):
        current_context()


def test_places_without_settings(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    context = current_context(project)
    assert context.runtime == Path(f"/tmp/lightcone-{os.getuid()}") / context.key
    assert context.scratch == Path(f"/var/tmp/lightcone-{os.getuid()}")
    assert context.state.parent == context.scratch / ".lightcone" / "sessions"


def test_places_that_were_set(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "lightcone.toml").write_text('[session]\nscratch = "here"\n')
    assert current_context(project).scratch == project / "here"
    monkeypatch.setenv("LIGHTCONE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("LIGHTCONE_RUNTIME_DIR", str(tmp_path / "run"))
    context = current_context(project)
    assert context.scratch == tmp_path / "scratch"
    assert context.runtime == tmp_path / "run" / context.key


def test_bad_setting(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTCONE_IDLE_TIMEOUT", "soon")
    with pytest.raises(SettingsError, match="'idle_timeout' in LIGHTCONE_IDLE_TIMEOUT"):
        current_context(project)


def test_state_of_another_boot_is_another(project: Path) -> None:
    context = current_context(project)
    assert context.state.name == f"{context.key}-{boot_id()[:8]}"
    assert re.fullmatch("[0-9a-f]{64}", boot_id())


def test_prepared_places_are_private(sandbox: Sandbox) -> None:
    for directory in (sandbox.runtime, sandbox.scratch):
        directory.rmdir()
    caller = sandbox.popen("session", "start", umask=0)
    assert caller.wait(timeout=60) == 0
    key = sandbox.status()["key"]
    mine = [sandbox.runtime, sandbox.runtime / key, sandbox.scratch / ".lightcone"]
    mine += [sandbox.state(), *(path for path in sandbox.state().iterdir() if path.is_dir())]
    assert {oct(path.stat().st_mode & 0o7777) for path in mine} == {"0o700"}
    for directory in (sandbox.runtime, sandbox.state()):
        for path in directory.rglob("*"):
            if not path.is_dir() and "spill" not in path.parts:
                assert path.lstat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("ln -s real run", "not a directory of its own but a link or a file"),
        ("touch run", "not a directory of its own|cannot be made"),
        ("mkdir -m 1777 run", "Other users may write to"),
    ],
    ids=["a link", "a file", "shared by all"],
)
def test_directory_of_sockets_that_cannot_be_trusted(
    sandbox: Sandbox, prepare: str, words: str
) -> None:
    sandbox.runtime.rmdir()
    (sandbox.base / "real").mkdir()
    subprocess.run(prepare, shell=True, cwd=sandbox.base, check=True)  # noqa: S602 (ours)
    result = sandbox.lc("session", "start", check=3)
    assert re.search(words, result.stderr)
    assert result.stderr.endswith("set LIGHTCONE_RUNTIME_DIR to a short path that is yours.\n")
    assert not list((sandbox.base / "real").iterdir())


def test_directory_of_sockets_that_others_may_write_to_is_refused(sandbox: Sandbox) -> None:
    sandbox.runtime.chmod(0o775)
    result = sandbox.lc("session", "start", check=3)
    assert "Other users may write to" in result.stderr
    assert sandbox.runtime.stat().st_mode & 0o7777 == 0o775


def test_directory_of_the_users_own_stays_as_it_is(sandbox: Sandbox) -> None:
    sandbox.runtime.chmod(0o755)
    sandbox.start()
    assert sandbox.runtime.stat().st_mode & 0o7777 == 0o755
    (ours,) = (path for path in sandbox.runtime.iterdir() if path.is_dir())
    assert ours.stat().st_mode & 0o7777 == 0o700


def test_socket_path_that_is_too_long(sandbox: Sandbox) -> None:
    runtime = sandbox.base / ("long" * 25)
    result = sandbox.lc("session", "start", check=3, env={"LIGHTCONE_RUNTIME_DIR": str(runtime)})
    assert re.search(r"has \d+ bytes, more than the \d+ that this system allows", result.stderr)
    assert result.stderr.endswith("set LIGHTCONE_RUNTIME_DIR to a short path that is yours.\n")
    assert sandbox.processes() == []


def test_scratch_that_cannot_be_written(sandbox: Sandbox) -> None:
    (sandbox.base / "file").touch()
    scratch = {"LIGHTCONE_SCRATCH": str(sandbox.base / "file")}
    result = sandbox.lc("session", "start", check=3, env=scratch)
    assert result.stderr.endswith("set LIGHTCONE_SCRATCH to a directory that is yours.\n")


def test_prepare_says_what_a_file_system_without_locks_needs(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: int, __: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setenv("LIGHTCONE_SCRATCH", str(sandbox.scratch))
    monkeypatch.setenv("LIGHTCONE_RUNTIME_DIR", str(sandbox.runtime))
    context = current_context(sandbox.project)
    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(SessionError, match="no working file locks: set LIGHTCONE_SCRATCH"):
        context.prepare()


def test_allocation_that_was_got_meanwhile_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(scratch=tmp_path)
    file = allocation_file(tmp_path, settings)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"version": ALLOCATION_VERSION, "job": 1}))

    def ended(job: int) -> jobs.JobVerdict:
        file.write_text(json.dumps({"version": ALLOCATION_VERSION, "job": 2}))
        return jobs.JobVerdict(jobs.JobState.ENDED, "")

    monkeypatch.setattr(jobs, "job_state", ended)
    assert live_allocation(file) is None
    assert read_allocation(file) == 2
