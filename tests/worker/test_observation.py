"""What a command's processes use, as ``strace`` sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightcone.state.observed import Trace
from lightcone.worker.observation import Observation, find_tracer, why_not_observed
from lightcone.worker.trace import TraceReader
from tests.helpers import wait_until
from tests.needs import do_without


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if why_not_observed(None):
        do_without(f"{why_not_observed(None)} (scripts/setup.sh strace installs it)")
    root = tmp_path.resolve() / "project é"
    (root / "sub").mkdir(parents=True)
    (root / "sub/a.txt").write_text("a\n")
    (root / "b <1> \\.txt").write_text("b\n")
    return root


def _observe(root: Path, command: str, code: int = 0) -> Trace:
    tracer = find_tracer(None)
    assert tracer is not None
    observation = Observation(tracer, root)
    argv = observation.arguments(["bash", "-e", "-o", "pipefail", "-c", command])
    result = subprocess.run(argv, cwd=root, stdin=subprocess.DEVNULL, timeout=60, check=False)
    observation.finish()
    assert result.returncode == code
    assert observation.is_complete
    return observation.trace


def test_files_are_seen_wherever_a_process_stands(root: Path) -> None:
    trace = _observe(
        root,
        "cat 'b <1> \\.txt'; cd sub; (cd ..; cat sub/../sub/a.txt); cat a.txt nope || :; "
        "ls . > /dev/null; echo > ../made; mv ../made ../moved; [ -e ../absent/x ] || :",
    )
    assert trace.read == {"b <1> \\.txt", "sub/a.txt"}
    assert trace.listed == {"sub"}
    assert trace.missing - {"moved"} == {"sub/nope", "absent/x"}
    assert trace.written == {"made", "moved"}


def test_python_that_opens_relative_to_a_directory(root: Path) -> None:
    script = (
        "import os, threading\n"
        "d = os.open('sub', os.O_RDONLY)\n"
        "os.close(os.open('a.txt', os.O_RDONLY, dir_fd=d))\n"
        "os.path.exists('zz'); os.access('yy', os.R_OK)\n"
        "t = threading.Thread(target=os.chdir, args=('sub',)); t.start(); t.join()\n"
        "open('w.txt', 'w').close(); open('w.txt').close()\n"
        "os.fchdir(os.open('..', os.O_RDONLY)); os.listdir('.')\n"
        "os.path.islink('link')\n"
    )
    (root / "s.py").write_text(script)
    trace = _observe(root, f"{sys.executable} s.py")
    assert {"s.py", "sub/a.txt", "sub/w.txt"} <= trace.read
    assert trace.listed == {"."}
    assert {"zz", "yy", "link"} <= trace.missing
    assert trace.written == {"sub/w.txt"}


def test_links_count_by_the_name_in_the_project(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.txt").write_text("far\n")
    (elsewhere / "back").symlink_to(root)
    (root / "data").symlink_to(elsewhere)
    trace = _observe(
        root,
        f"cat data/far.txt; ls data > /dev/null; cat '{elsewhere}/back/sub/a.txt'; "
        f"[ -e '{elsewhere}/back/none' ] || :; [ -e '{elsewhere}/none' ] || :",
    )
    assert trace.read == {"data/far.txt", "sub/a.txt"}
    assert "data" in trace.listed
    assert trace.missing == {"none"}


def test_programs_of_the_project_are_read(root: Path) -> None:
    (root / "prog").write_text("#!/bin/sh\nexit 0\n")
    (root / "prog").chmod(0o755)
    trace = _observe(root, "./prog")
    assert "prog" in trace.read and trace.programs == {"prog"}


@pytest.mark.parametrize(
    ("command", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -USR1 $$", -10), ("false", 1)]
)
def test_end_is_the_commands_own(root: Path, command: str, code: int) -> None:
    _observe(root, command, code)


def test_command_is_this_process_s_child_with_its_descriptors(root: Path) -> None:
    _observe(root, f'[ $PPID = {os.getpid()} ]; [ "$(echo /proc/self/fd/*| wc -w)" -le 5 ]')


def test_detached_process_keeps_nobody_waiting(root: Path) -> None:
    begun = time.monotonic()
    _observe(root, "(setsid sh -c 'echo $$ > pid; exec sleep 60' &) ; until [ -s pid ]; do :; done")
    assert time.monotonic() - begun < 30
    pid = int((root / "pid").read_text())
    os.kill(pid, 0)
    tracer = int(_status(pid, "TracerPid"))
    os.kill(pid, 9)
    wait_until(lambda: not Path(f"/proc/{tracer}").exists(), "strace has ended with it")


def test_observation_that_breaks_off_is_not_complete(root: Path) -> None:
    tracer = find_tracer(None)
    assert tracer is not None
    observation = Observation(tracer, root)
    argv = observation.arguments(["bash", "-c", "echo up; read x; cat sub/a.txt"])
    with subprocess.Popen(
        argv, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(int(_status(process.pid, "TracerPid")), 9)
        process.communicate(b"\n", timeout=60)
    observation.finish()
    assert process.returncode != 0
    assert not observation.is_complete


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))


def test_reasons_why_nothing_is_observed(tmp_path: Path) -> None:
    assert why_not_observed(str(tmp_path)) == "strace is not installed"
    old, refusing = tmp_path / "old/strace", tmp_path / "refusing/strace"
    for file, text in (
        (old, "echo strace -- version 4.26"),
        (
            refusing,
            'case $1 in --version) ;; *) echo "ptrace: Operation not permitted"; exit 1; esac',
        ),
    ):
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    assert why_not_observed(str(old.parent)) == f"{old} is version 4.26, older than 5.3"
    assert why_not_observed(str(refusing.parent)) == (
        "strace may not trace here (ptrace: Operation not permitted)"
    )


def _read(*lines: str) -> Trace:
    reader = TraceReader("/p")
    for line in lines:
        reader.feed(line.encode())
    reader.finish()
    assert reader.has_ended
    return reader.trace


def test_trace_of_a_strace_that_prints_no_working_directory() -> None:
    trace = _read(
        '10    execve("/bin/bash", 0x1, 0x2) = 0',
        '10 chdir("sub") = 0',
        '10 open("a", O_RDONLY|O_LARGEFILE) = 3</p/sub/a>',
        '10 stat64("b", 0x1) = -1 ENOENT (No such file or directory)',
        '10 openat(AT_FDCWD, "c", O_RDWR|O_CREAT, 0666) = 3</p/sub/c>',
        "10 +++ exited with 0 +++",
    )
    assert trace.read == {"sub/a", "sub/c"}
    assert trace.missing == {"sub/b"}
    assert trace.written == {"sub/c"}


def test_child_that_is_reported_before_its_parent_s_call() -> None:
    trace = _read(
        '10 execve("/bin/bash", 0x1, 0x2) = 0',
        '10 chdir("sub") = 0',
        "10 vfork( <unfinished ...>",
        '11 openat(AT_FDCWD, "a", O_RDONLY <unfinished ...>',
        "11 <... openat resumed>) = 3</p/sub/a>",
        '11 chdir("/p/other") = 0',
        "10 <... vfork resumed>) = 11",
        '11 openat(AT_FDCWD, "b", O_RDONLY) = 3</p/other/b>',
        '10 openat(AT_FDCWD, "c", O_RDONLY) = 3</p/sub/c>',
        '10 openat(AT_FDCWD, "d", O_RDONLY) = -1 EACCES (Permission denied)',
        "11 +++ exited with 0 +++",
        "10 +++ exited with 0 +++",
    )
    assert trace.read == {"sub/a", "other/b", "sub/c"}
    assert not trace.missing


def test_threads_share_a_working_directory() -> None:
    trace = _read(
        '10 execve("/bin/x", 0x1, 0x2) = 0',
        "10 clone(child_stack=0x1, flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_THREAD) = 11",
        '11 chdir("sub") = 0',
        "10 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD) = 12",
        '12 chdir("deep") = 0',
        '10 access("a", R_OK) = -1 ENOENT (No such file or directory)',
        '12 access("b", R_OK) = -1 ENOENT (No such file or directory)',
        "10 +++ killed by SIGKILL +++",
    )
    assert trace.missing == {"sub/a", "sub/deep/b"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "strace: Process 12 attached",
        "10 [ Process PID=10 runs in 32 bit mode. ]",
        "10 <... openat resumed>) = 3</p/a>",
        '10 openat(AT_FDCWD, "cut',
        '10 openat(AT_FDCWD, "a", O_RDONLY) = ?',
        "10 getdents64(3, 0x1, 100) = 0",
        "10 openat(AT_FDCWD, 0x5, O_RDONLY) = -1 EFAULT (Bad address)",
    ],
)
def test_line_that_says_nothing(line: str) -> None:
    begin, end = '10 execve("/bin/x", 0x1, 0x2) = 0', "10 +++ exited with 0 +++"
    assert _read(begin, line, end) == Trace()


def test_command_that_strace_did_not_begin_to_watch(root: Path, tmp_path: Path) -> None:
    tracer = tmp_path / "strace"
    tracer.write_text("#!/bin/sh\nkill -ALRM $$\n")
    tracer.chmod(0o755)
    observation = Observation(str(tracer), root)
    result = subprocess.run(observation.arguments(["true"]), timeout=60, check=False)
    observation.finish()
    assert observation.was_late(result.returncode)
    assert not observation.is_complete


def test_empty_path_is_none(root: Path) -> None:
    (root / "s.py").write_text("import os\nos.path.exists('')\n")
    trace = _observe(root, f"rm -f ''; {sys.executable} s.py")
    assert "." not in trace.missing


def test_names_that_look_like_the_end_of_a_call(root: Path) -> None:
    odd = 'w) = 3 (a) "b".dat'
    (root / odd).write_text("1\n")
    (root / "d) = -1 ENOENT").mkdir()
    trace = _observe(root, "cat w*; cd d*; cat ../w* x || :")
    assert odd in trace.read
    assert trace.missing == {"d) = -1 ENOENT/x"}


@pytest.mark.parametrize(
    "command",
    [
        'mkdir w; ln -s "$PWD/sub/a.txt" w/; cat w/*; rm -r w',
        "ln -s sub w; cat w/a.txt; rm w",
        "ln -s sub w; ln -s w/a.txt v; cat v; rm v w",
        "ln sub/a.txt t; cat t; rm t",
        "mv sub/a.txt q; cat q; mv -n q sub/a.txt",
        "mv sub q; cat q/a.txt; mv -n q sub",
        "ln sub/a.txt t; mv t u; cat u; rm u",
        "chmod 600 sub/a.txt; cat sub/a.txt",
    ],
)
def test_file_that_is_read_by_another_name(root: Path, command: str) -> None:
    trace = _observe(root, command)
    assert "sub/a.txt" in trace.read
    assert not {"sub", "sub/a.txt"} & trace.written
    assert not {"sub", "sub/a.txt"} & trace.missing


@pytest.mark.parametrize(
    "command",
    [
        "ln -s sub/a.txt t; echo >> t; rm t",
        "ln sub/a.txt t; echo >> t; rm t",
        "mv sub/a.txt q; echo >> q; mv q sub/a.txt",
        "echo > q; mv q sub/a.txt",
        "sed -i s/a/b/ sub/a.txt",
        "mv sub/a.txt q; cp q r; mv r sub/a.txt",
    ],
)
def test_file_that_is_written_by_another_name(root: Path, command: str) -> None:
    assert "sub/a.txt" in _observe(root, command).written


def test_links_and_listings_that_are_followed(root: Path) -> None:
    trace = _observe(root, "ln -s sub w; ls w/ > /dev/null; [ -e w/none ] || :; rm w")
    assert "sub" in trace.listed
    assert trace.entries["sub"].keys() == {"a.txt"}
    assert "sub/none" in trace.missing
