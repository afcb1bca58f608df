"""What the doctor finds of a host: its cleaners, its logout, its limits, its hooks."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightcone.project.context import Context, context_of
from lightcone.session import doctor, doctor_host
from lightcone.session.doctor import _clock, _containers, _directories, _disk, _locks, _socket_path
from lightcone.session.doctor_host import Check, Verdict
from lightcone.system import mounts
from lightcone.system.processes import run_quiet
from tests.helpers import SPEC


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A context with the default places, on a host without any settings or programs."""
    monkeypatch.setattr(doctor_host, "ROOT", tmp_path / "root")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("root", "bin", "home", "project"):
        (tmp_path / name).mkdir()
    return context_of(tmp_path / "project")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def _program(name: str, script: str) -> None:
    path = _write(doctor_host.ROOT.parent / "bin" / name, f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _one(name: str, context: Context) -> Check:
    (found,) = [check for check in doctor_host.check_host(context) if check.name == name]
    return found


def _cleaners(context: Context) -> Check:
    return _one("cleaners", context)


def _logout(context: Context) -> Check:
    return _one("logout", context)


def _slurm(context: Context) -> Check:
    return _one("slurm", context)


def _hooks(context: Context) -> Check:
    return _one("hooks", context)


def _runtimes(context: Context) -> Check:
    return _containers(context)


@pytest.mark.parametrize("check", [_cleaners, _logout, _slurm, _hooks, _runtimes])
def test_bare_host_is_fit(context: Context, check: Callable[[Context], Check]) -> None:
    found = check(context)
    assert (found.verdict, found.remedy) == (Verdict.OK, "")


@pytest.mark.parametrize(
    ("line", "verdict", "words"),
    [
        ("q /tmp 1777 root root 10d", "ok", "systemd-tmpfiles removes from /tmp what is older"),
        ("q /tmp 1777 root root 10d", "ok", "than 10 d; a session keeps its own files younger"),
        ("q /var/tmp 1777 root root cm:30d", "ok", "from /var/tmp what is older than 30 d"),
        ("D! /tmp 1777 root root 30min -", "warning", "older than 30 min"),
        ("D /tmp 1777 root root 0", "warning", "older than 0.0 s"),
        ("D /tmp 1777 root root -", "ok", "nothing is known"),
        ("#q /tmp 1777 root root 10d", "ok", "nothing is known"),
        ("q /tmp/other 1777 root root 10d", "ok", "nothing is known"),
        ("q /tmp 1777 root root 1m\nx /*/lightcone-*", "ok", "nothing is known"),
    ],
)
def test_cleaners_of_systemd(context: Context, line: str, verdict: str, words: str) -> None:
    _write(doctor_host.ROOT / "usr/lib/tmpfiles.d/tmp.conf", f"# a comment\n{line}\n")
    found = _cleaners(context)
    assert (found.verdict.value, bool(found.remedy)) == (verdict, verdict != "ok")
    assert words in found.found


def test_cleaners_settings_in_etc_replace_those_that_came(context: Context) -> None:
    _write(doctor_host.ROOT / "usr/lib/tmpfiles.d/tmp.conf", "q /tmp 1777 root root 1m\n")
    _write(doctor_host.ROOT / "etc/tmpfiles.d/tmp.conf", "q /tmp 1777 root root -\n")
    assert "nothing is known" in _cleaners(context).found


def test_other_cleaners(context: Context) -> None:
    _write(
        doctor_host.ROOT / "etc/tmpreaper.conf", "TMPREAPER_TIME=7d\nTMPREAPER_DIRS='/tmp/. /x'\n"
    )
    assert "nothing is known" in _cleaners(context).found
    _write(doctor_host.ROOT / "etc/cron.daily/tmpreaper", "#!/bin/sh\n")
    assert "tmpreaper removes from /tmp what is older than 7 d" in _cleaners(context).found
    _write(
        doctor_host.ROOT / "etc/cron.daily/tmpwatch", "tmpwatch -umc -x /tmp/.X11 10d /var/tmp\n"
    )
    assert "tmpwatch removes from /var/tmp what is older than 10 d" in _cleaners(context).found


@pytest.mark.parametrize(
    ("files", "killing"),
    [
        ({"etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=yes\n"}, False),
        ({"etc/systemd/logind.conf": "[Login]\nKillUserProcesses=yes\n"}, True),
        (
            {
                "etc/systemd/logind.conf": "KillUserProcesses=yes\n",
                "usr/lib/systemd/logind.conf.d/50-site.conf": "KillUserProcesses = no\n",
            },
            False,
        ),
        (
            {
                "etc/systemd/logind.conf.d/10-mine.conf": "KillUserProcesses=no\n",
                "usr/lib/systemd/logind.conf.d/50-site.conf": "KillUserProcesses=1\n",
            },
            True,
        ),
        (
            {
                "etc/systemd/logind.conf.d/50-site.conf": "KillUserProcesses=no\n",
                "usr/lib/systemd/logind.conf.d/50-site.conf": "KillUserProcesses=yes\n",
            },
            False,
        ),
    ],
)
def test_logout(
    context: Context, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], killing: bool
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1234)
    monkeypatch.setenv("LOGNAME", "somebody")
    for name, text in files.items():
        _write(doctor_host.ROOT / name, text)
    found = _logout(context)
    assert found.verdict is (Verdict.WARNING if killing else Verdict.OK)
    assert ("loginctl enable-linger" in found.remedy) == killing
    _write(doctor_host.ROOT / "var/lib/systemd/linger/somebody", "")
    assert _logout(context).verdict is Verdict.OK


def test_user_without_a_name(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 987_654)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    _write(doctor_host.ROOT / "etc/systemd/logind.conf", "KillUserProcesses=yes\n")
    assert _logout(context).verdict is Verdict.WARNING


def test_limits(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 128))
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 100 << 20)
    for name, remedy in (
        ("open files", "ulimit -Hn"),
        ("processes", "ulimit -u"),
        ("memory", "use a larger machine"),
    ):
        found = _one(name, context)
        assert found.verdict is Verdict.WARNING
        assert remedy in found.remedy


def test_slurm(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    found = _slurm(context)
    assert found.found == "in job 17, and squeue and srun and scontrol not on the PATH"
    assert found.verdict is Verdict.WARNING
    _program("squeue", "echo RUNNING")
    _program("srun", "exit 1")
    _program("scontrol", "exit 1")
    assert _slurm(context).found == "in job 17, running"
    _program("squeue", "exit 0")
    assert _slurm(context).remedy == "leave this shell: its job has ended"
    _program("squeue", "exit 1")
    assert _slurm(context).verdict is Verdict.WARNING
    monkeypatch.delenv("SLURM_JOB_ID")
    assert _slurm(context).found == "installed, and its controller does not answer"
    _program("scontrol", "echo up")
    assert _slurm(context).verdict is Verdict.OK


def test_program_that_does_not_answer_is_not_waited_for(context: Context) -> None:
    _program("slow", "exec /bin/sleep 100")
    assert run_quiet("slow", timeout=0.1) is None


def test_hooks(context: Context) -> None:
    group = {"hooks": [{"type": "command", "command": "lc hook session-end 2>/dev/null || :"}]}
    file = _write(context.root / ".claude/settings.json", json.dumps({"hooks": {"Stop": [group]}}))
    assert _hooks(context).found.startswith("not set up: what an agent started ends when it")
    file.write_text(json.dumps({"hooks": {"SessionEnd": [group]}}))
    assert _hooks(context).found == f"{file} has one that calls lc, which is not on the PATH"
    _program("lc", "")
    assert _hooks(context).found == f"{file} has one that calls lc when an agent leaves"
    own = doctor_host.ROOT.parent / "home/.claude/settings.json"
    arguments = {"command": "lc", "args": ["hook", "session-end"]}
    _write(own, json.dumps({"hooks": {"SessionEnd": [{"hooks": [arguments]}]}}))
    assert _hooks(context).found.startswith(str(own))
    own.write_text(json.dumps({"enabledPlugins": {"lightcone@somewhere": True}}))
    assert _hooks(context).found.startswith(str(own))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"hooks": {"SessionEnd": [1]}}', "[" * 100_000])
def test_hooks_that_cannot_be_read(context: Context, text: str) -> None:
    _write(context.root / ".claude/settings.json", text)
    found = _hooks(context)
    assert found.verdict is Verdict.WARNING
    assert "cannot be read" in found.found


def test_containers(context: Context) -> None:
    spec = SPEC.replace("    recipe:\n", "    recipe:\n      container: python:3.12\n")
    _write(context.root / "astra.yaml", spec)
    found = _runtimes(context)
    assert found.verdict is Verdict.WARNING
    assert found.found == "no runtime for them, and 1 of the outputs here need one"
    _program("docker", 'test "$1" = --version && echo Docker version 28.1.2, build 1')
    assert "its engine does not answer" in _runtimes(context).found
    _program("docker", "echo Docker version 28.1.2, build 1")
    assert _runtimes(context).found == "docker 28.1.2 runs them"
    _program("apptainer", "exit 1")
    assert _runtimes(context).found == (
        "apptainer, which does not tell its version, runs them; docker 28.1.2 would, were it the "
        "first found"
    )


# ---- Places -------------------------------------------------------------------------------------


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A context whose places are a test's own."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setenv("LIGHTCONE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("LIGHTCONE_RUNTIME_DIR", str(tmp_path / "run"))
    return context_of(root)


def test_place_that_others_can_rename(placed: Context, tmp_path: Path) -> None:
    assert _directories(placed).verdict is Verdict.OK
    tmp_path.chmod(0o777)
    found = _directories(placed)
    assert found.verdict is Verdict.WARNING
    assert f"as all may write to {tmp_path}" in found.found
    tmp_path.chmod(0o1777)
    assert _directories(placed).verdict is Verdict.OK


def test_socket_path(placed: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTCONE_RUNTIME_DIR", str(tmp_path / ("long" * 30)))
    found = _socket_path(context_of(placed.root))
    assert found.verdict is Verdict.FAILURE
    assert "set LIGHTCONE_RUNTIME_DIR to a shorter path" in found.remedy


def test_locks_that_exclude_nobody(placed: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    placed.prepare()
    assert _locks(placed).verdict is Verdict.OK
    monkeypatch.setattr(doctor, "_TRY_TO_LOCK", "")
    found = _locks(placed)
    assert found.verdict is Verdict.FAILURE
    assert "two processes got the same lock at once" in found.found


def test_locks_by_way_of_another_mount(placed: Context, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    (tmp_path / "mount").mkdir()
    (tmp_path / "scratch").mkdir()
    script = 'mount --bind "$0/scratch" "$0/mount" && exec "$1" -P -c "$2" "$0"'
    code = (
        "import sys, pathlib\n"
        "from lightcone.session import doctor; from lightcone.project import context\n"
        "found = doctor._locks(context.context_of(pathlib.Path(sys.argv[1]) / 'project'))\n"
        "print(found.verdict, found.found)"
    )
    (placed.scratch / ".lightcone").mkdir()
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(tmp_path), sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in result.stderr or "permission denied" in result.stderr:
        pytest.skip("this user cannot mount anything")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("ok those on ")
    assert result.stdout.endswith(f", also as {tmp_path}/mount/.lightcone\n")


def test_disk_that_is_full(placed: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    placed.prepare()
    monkeypatch.setattr("os.fsync", full)
    found = _disk(placed)
    assert found.verdict is Verdict.FAILURE
    assert f"nothing can be written to {placed.scratch} (No space left" in found.found


def test_little_room(placed: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MIN_FREE_DISK", 1 << 80)
    assert _disk(placed).verdict is Verdict.WARNING


@pytest.mark.parametrize(("offset", "word"), [(-3600.0, "ahead of"), (3600.0, "behind")])
def test_clock_of_another_machine(
    placed: Context, monkeypatch: pytest.MonkeyPatch, offset: float, word: str
) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + offset)
    found = _clock(placed)
    assert found.verdict is Verdict.WARNING
    assert f"is 1 h {word} this host's" in found.found


def test_mounts_are_read_as_the_kernel_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _write(
        tmp_path / "mountinfo",
        "1 0 8:1 / / rw shared:1 - ext4 /dev/vda rw\n"
        "2 1 0:50 / /with\\040space rw - nfs4 server:/x rw\n"
        "3 1 0:51 / /with\\040space rw master:1 - lustre y rw\n"
        "4 1 0:52 / /with\rreturn rw - xfs z rw\n",
    )
    monkeypatch.setattr(mounts, "_TABLE", table)
    assert mounts.file_system(Path("/with space/a")) == "lustre"
    assert mounts.file_system(Path("/with")) == "ext4"
    assert mounts.file_system(Path("/with\rreturn")) == "xfs"
    monkeypatch.setattr(mounts, "_TABLE", tmp_path / "none")
    assert mounts.file_system(Path("/")) == ""
    assert mounts.alternative_path(Path("/")) is None
