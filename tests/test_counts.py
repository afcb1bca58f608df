"""What a call costs, in counts that do not depend on the machine: no figure here is a time.

A probe is loaded into every Python program of the sandbox. It notes which modules a program had in
the end, which programs it started, how often it flushed to the disk and what a worker asked of its
scheduler. The figures are limits: one that is exceeded has to be won back, or raised with a reason
in the same commit.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import Sandbox

_PROBE = """\
import atexit, os, sys, time

_starts = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")
# The id alone may have been another's before.
_name = os.path.join(os.environ["COUNTS"], f"{os.getpid()}-{time.monotonic_ns()}")
_file = os.open(_name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

def _note(*words):
    os.write(_file, (" ".join(map(str, words)).replace("\\n", " ") + "\\n").encode())

def _flushed(flush):
    def noted(descriptor):
        _note("flush")
        return flush(descriptor)
    return noted

_note("argv", *sys.orig_argv)
os.fsync, os.fdatasync = _flushed(os.fsync), _flushed(os.fdatasync)
atexit.register(lambda: _note("modules", *sys.modules))
sys.addaudithook(lambda event, given: event in _starts and _note("start", event, *given[:2]))

if "distributed.cli.dask_worker" in sys.orig_argv and "--restart" not in sys.orig_argv:
    from distributed import core

    async def _send_recv(comm=None, *, _call=core.send_recv, **words):
        _note("ask", words["op"])
        return await _call(comm, **words)

    core.send_recv = _send_recv
"""
_MESSAGES = """\
import collections, json, sys
from lightcone.wire import transport

counts = {name: collections.Counter() for name in ("sent", "received")}

def _framed(packed, *, call=transport.frame, unpack=transport.unpack):
    counts["sent"].update(message["op"] for message in unpack(packed))
    return call(packed)

def _unpack(packed, *, call=transport.unpack):
    messages = call(packed)
    counts["received"][messages[0]["event"]] += 1
    return messages

transport.frame, transport.unpack = _framed, _unpack
from lightcone.cli.main import main
try:
    main()
finally:
    print(json.dumps(counts))
"""
_HEAVY = {"distributed", "dask", "tornado", "libtmux", "rich", "cryptography", "psutil"}
_HEAVY |= {"linkml_runtime", "pydantic"}  # what ASTRA's own schema is read with
# The many are several batches, on machines of a few processors.
_FEW, _MANY = 2, 82


@dataclass(frozen=True)
class _Counted:
    """What one program did."""

    argv: list[str]
    modules: set[str]
    starts: list[str]
    flushes: int
    questions: list[str]


class _Probed:
    """A sandbox whose Python programs are counted; ``started`` is the call that began a session."""

    started: _Counted

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.place = box.base / "counts"
        self.place.mkdir()
        probe = box.base / "probe"
        probe.mkdir()
        (probe / "sitecustomize.py").write_text(_PROBE)
        box.env |= {"COUNTS": str(self.place), "PYTHONPATH": str(probe)}

    def lc(self, *arguments: str) -> _Counted:
        """What one call of ``lc`` does."""
        before = set(self.place.iterdir())
        self.box.lc(*arguments)
        return self._one([path for path in self.place.iterdir() if path not in before], "lightcone")

    def python(self, statement: str) -> _Counted:
        """What a program does that is one statement."""
        before = set(self.place.iterdir())
        self.box.python("-c", statement)
        return self._one([path for path in self.place.iterdir() if path not in before], "-c")

    def worker(self) -> _Counted:
        """What the session's worker has done so far."""
        return self._one(list(self.place.iterdir()), "distributed.cli.dask_worker")

    def outputs(self, count: int) -> None:
        """Have the project declare that many outputs, none of them made."""
        shutil.rmtree(self.box.project / "results", ignore_errors=True)
        recipe = {"command": "echo $PPID > {output}"}
        outputs = [
            {"id": f"o{number}", "type": "data", "format": "txt", "recipe": recipe}
            for number in range(count)
        ]
        spec = {"version": "0.0.14", "name": "counts", "inputs": [], "outputs": outputs}
        (self.box.project / "astra.yaml").write_text(json.dumps(spec))

    def _one(self, paths: list[Path], word: str) -> _Counted:
        (found,) = (each for each in map(_read, paths) if word in each.argv)
        return found


def _read(path: Path) -> _Counted:
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    modules = [set(words[1:]) for words in lines if words[0] == "modules"]
    return _Counted(
        argv=lines[0][1:],
        modules=modules[-1] if modules else set(),
        starts=[" ".join(words[1:]) for words in lines if words[0] == "start"],
        flushes=sum(words[0] == "flush" for words in lines),
        questions=[words[1] for words in lines if words[0] == "ask"],
    )


@pytest.fixture(scope="module")
def live() -> Iterator[_Probed]:
    """With a session, and every output made."""
    box = Sandbox()
    try:
        probed = _Probed(box)
        probed.started = probed.lc("session", "start")
        probed.lc("run")
        yield probed
    finally:
        box.close()


def test_start_of_a_session_starts_few_programs(live: _Probed) -> None:
    # Which version of the terminal server it is, and the server itself.
    assert len(live.started.starts) <= 2, live.started.starts


# How many modules more than 'import click' takes: a few of ours, and no heavy ones.
@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        (("--help",), 25),
        (("session", "status"), 65),
        (("status",), 145),
        (("run",), 148),
        (("run", "--dry-run"), 148),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_fast_paths_import_little_and_start_nothing(
    live: _Probed, arguments: tuple[str, ...], most: int
) -> None:
    click = live.python("import click")
    call = live.lc(*arguments)
    more = call.modules - click.modules
    assert {name.partition(".")[0] for name in more} & _HEAVY == set()
    assert len(more) <= most, sorted(more)
    assert call.starts == []
    assert call.flushes == 0


@pytest.mark.skipif(
    importlib.util.find_spec("lightcone.cli.hook_fast") is None, reason="no hook yet"
)
def test_hook_imports_next_to_nothing(live: _Probed) -> None:
    call = live.lc("hook", "session-end")
    more = call.modules - live.python("import click").modules
    assert {name.partition(".")[0] for name in call.modules} & {*_HEAVY, "click"} == set()
    assert len(more) <= 25, sorted(more)
    assert call.starts == []


def test_an_output_costs_the_worker_one_process_and_few_flushes(live: _Probed) -> None:
    starts, flushes = [], []
    for count in (_FEW, _MANY):
        live.outputs(count)
        before = live.worker()
        call = live.lc("run")
        after = live.worker()
        assert call.starts == []
        starts.append(len(after.starts) - len(before.starts))
        flushes.append(after.flushes - before.flushes)
        asked = Counter(after.questions) - Counter(before.questions)
        questions = {what: asked[what] for what in asked if "heartbeat" not in what}
        # Who the caller is: asked once, or at once for as many outputs as were begun together.
        assert questions.keys() == {"lightcone_run"}
        assert questions["lightcone_run"] <= (os.cpu_count() or 1)
    assert starts[1] - starts[0] == _MANY - _FEW
    # The result and its directory, the manifest and its directory.
    assert flushes[1] - flushes[0] <= 4 * (_MANY - _FEW)
    worker = live.box.programs()["worker"]
    parents = [path.read_text() for path in (live.box.project / "results").rglob("*.txt")]
    assert Counter(text.strip() for text in parents if text.strip().isdigit()) == {
        str(worker): _MANY
    }


def test_an_output_costs_few_messages_and_no_round_trip(live: _Probed) -> None:
    counted = []
    for count in (_FEW, _MANY):
        live.outputs(count)
        told = live.box.python("-c", _MESSAGES, "run", "--quiet").stdout.splitlines()[-1]
        counted.append(json.loads(told))
    few, many = counted
    # Who it is, and the orders of each batch; nothing that is answered and waited for.
    assert many["sent"].keys() == few["sent"].keys() == {"begin", "submit"}
    assert many["sent"]["begin"] == 1
    assert many["sent"]["submit"] - few["sent"]["submit"] <= _MANY - _FEW
    # What was begun and done, gathered.
    received = [sum(each["received"].values()) for each in counted]
    assert received[1] - received[0] <= _MANY - _FEW


def test_making_outputs_in_a_session_imports_no_engine(live: _Probed) -> None:
    live.outputs(_FEW)
    calls = {"run": live.lc("run"), "exec": live.lc("exec", "--", "true")}
    click = live.python("import click")
    for verb, most in (("run", 203), ("exec", 135)):
        more = calls[verb].modules - click.modules
        assert {name.partition(".")[0] for name in more} & _HEAVY == set()
        assert len(more) <= most, (verb, len(more), sorted(more))
        assert calls[verb].starts == []
