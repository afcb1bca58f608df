"""The command line as a whole: its words, its exit codes, and what a call costs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
from collections.abc import Iterator
from pathlib import Path
from select import PIPE_BUF

import click
import pytest

import lightcone
from lightcone.cli.main import cli
from tests.helpers import Sandbox

# What the cluster and the terminal are made of is nothing that a user has to know.
_ENGINE = re.compile(
    r"\b(dask|distributed|tornado|nanny|tmux|libtmux|bokeh|client-server|future|filelock)\b",
    re.IGNORECASE,
)
_HEAVY = ("distributed", "dask", "tornado", "libtmux", "rich", "cryptography", "astra", "psutil")
_LOADED = """\
import json, sys
try:
    {statement}
except SystemExit as end:
    assert not end.code, end.code
names = {{name.partition(".")[0] for name in sys.modules}}
print(json.dumps(sorted(names & set({heavy!r}))), file=sys.stderr)
"""


def _commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, (*path, name))


_TREE = dict(_commands(cli))


@pytest.mark.parametrize("path", _TREE, ids=lambda path: " ".join(("lc", *path)))
def test_help_does_not_name_the_engine(path: tuple[str, ...]) -> None:
    context = click.Context(_TREE[path], info_name=" ".join(("lc", *path)))
    text = _TREE[path].get_help(context)
    assert text.startswith("Usage: lc")
    assert len(text.splitlines()) >= 4
    assert _ENGINE.findall(text) == []


@pytest.mark.parametrize("path", _TREE, ids=lambda path: " ".join(("lc", *path)))
def test_help_explains_every_command_and_option(path: tuple[str, ...]) -> None:
    command = _TREE[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.metavar, parameter.opts


def test_help_of_the_whole_lists_verbs_and_exit_codes(sandbox: Sandbox) -> None:
    asked = sandbox.lc("--help")
    assert sandbox.lc("-h").stdout == asked.stdout
    for verb in ("run", "exec", "status", "session"):
        assert re.search(rf"^  {verb} +\w", asked.stdout, re.MULTILINE)
    for code in ("0 all good", "130 interrupted"):
        assert code in " ".join(asked.stdout.split())
    bare = sandbox.lc(check=2)
    assert bare.stdout + bare.stderr == asked.stdout


def test_help_is_grouped_by_what_one_wants_to_do(sandbox: Sandbox) -> None:
    shown = sandbox.lc("--help").stdout
    titles = ("Make results:", "Look at results:", "The session:", "Set up:")
    assert [line for line in shown.splitlines() if line in titles] == list(titles)
    verbs = re.findall(r"^  ([a-z]+) {2,}[A-Z]", shown, re.MULTILINE)
    assert verbs == list(cli.list_commands(click.Context(cli)))
    assert "Commands:" not in shown


def test_a_life_of_messages_does_not_name_the_engine(sandbox: Sandbox) -> None:
    shown = []
    for arguments in (
        ("session", "status"),
        ("session", "start"),
        ("session", "start"),
        ("session", "status"),
        ("session", "list"),
        ("exec", "--cpus", "9999", "--", "true"),
        ("exec", "--", "no-such-command"),
        ("session", "attach"),
        ("session", "wait", "--for", "end", "--timeout", "0"),
        ("session", "stop"),
        ("session", "attach"),
        ("session", "status"),
        ("exec", "--", "true"),
    ):
        result = sandbox.lc(*arguments, check=None)
        shown += [result.stdout, result.stderr]
    assert _ENGINE.findall("".join(shown)) == []


def test_json_keys_do_not_name_the_engine(sandbox: Sandbox) -> None:
    def keys(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            yield from value
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from keys(item)

    told = [sandbox.status(), sandbox.start()]
    told += json.loads(sandbox.lc("session", "list", "--json").stdout)
    assert _ENGINE.findall(" ".join(keys(told)).replace("_", " ")) == []


def test_version(sandbox: Sandbox) -> None:
    assert sandbox.lc("--version").stdout == f"lc, version {lightcone.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nonsense",), 2),
        (("--nonsense",), 2),
        (("session",), 2),
        (("session", "attach"), 3),
        (("exec",), 125),
        (("exec", "--nonsense"), 125),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_exit_codes(sandbox: Sandbox, arguments: tuple[str, ...], code: int) -> None:
    result = sandbox.lc(*arguments, check=code)
    assert result.stdout + result.stderr


@pytest.mark.parametrize(
    "arguments", [("--help",), ("status",), ("status", "--json")], ids=" ".join
)
def test_reader_that_leaves_early(shared: Sandbox, arguments: tuple[str, ...]) -> None:
    program = shared.popen(*arguments)
    assert program.stdout is not None
    program.stdout.close()
    program.stdout = None
    _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (1, b"")


def test_reader_that_is_slow_where_nobody_is_to_wait(shared: Sandbox) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    missing = b"\0" * PIPE_BUF
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, missing):
            pass
    with open(reader, "rb") as followed, open(writer, "wb") as pipe:
        program = shared.popen("--help", stdout=pipe)
        pipe.close()
        assert program.stderr is not None
        assert not select.select([program.stderr], [], [], 2.0)[0]  # neither done nor at a loss
        told = followed.read().strip(b"\0")
        _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, b"")
    assert told.endswith(b"130 interrupted.\n")


_FULL = Path("/dev/full")
_UNWRITTEN = (
    "lc: What lc prints could not be written (No space left on device): make room there, or send "
    "it elsewhere.\n"
)


@pytest.mark.skipif(not _FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("status",),
        ("status", "--json"),
        ("run",),
        ("run", "-n"),
        ("run", "--json"),
        ("session", "status"),
        ("session", "start"),
        ("exec", "--", "echo", "something"),
    ],
    ids=" ".join,
)
def test_disk_behind_the_output_that_is_full(shared: Sandbox, arguments: tuple[str, ...]) -> None:
    with _FULL.open("wb") as full:
        program = shared.popen(*arguments, stdout=full)
        _, errors = program.communicate(timeout=60)
    assert errors.decode() == _UNWRITTEN
    assert program.returncode == (125 if arguments[0] == "exec" else 1)


@pytest.mark.skipif(not _FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("arguments", [("run",), ("exec", "--", "true")], ids=" ".join)
def test_disk_behind_the_output_that_is_full_as_a_session_starts(
    sandbox: Sandbox, arguments: tuple[str, ...]
) -> None:
    with _FULL.open("wb") as full:
        program = sandbox.popen(*arguments, stdout=full, stderr=full)
        assert program.wait(timeout=60) == (125 if arguments[0] == "exec" else 1)
        program = sandbox.popen("run", stdout=full)
        _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors.decode()) == (1, _UNWRITTEN)


@pytest.mark.skipif(not _FULL.exists(), reason="there is no device that is always full")
def test_disk_behind_the_errors_that_is_full(shared: Sandbox) -> None:
    with _FULL.open("wb") as full:
        program = shared.popen("run", "nothing", stderr=full)
        out, _ = program.communicate(timeout=60)
    assert (program.returncode, out) == (2, b"")


_NO_MORE = "end some of what runs here, or have this machine's limits raised, and run again.\n"
# As where a user has as many processes and threads as he may.
_REFUSED = """\
import errno, subprocess, sys, threading
from lightcone.cli.main import main
def refuse(*_, **__):
    {does}
{what} = refuse
main()
"""
_NO_THREAD = _REFUSED.format(
    what="threading.Thread.start", does='raise RuntimeError("can\'t start new thread")'
)
_NO_PROCESS = _REFUSED.format(
    what="subprocess.Popen", does="raise BlockingIOError(errno.EAGAIN, 'no more')"
)


def test_limits_that_are_reached(sandbox: Sandbox) -> None:
    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))

    program = sandbox.popen("session", "start", preexec_fn=few_files)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 3
    assert errors.decode() == f"lc: tmux cannot be run (Too many open files): {_NO_MORE}"
    refused = sandbox.python("-c", _NO_PROCESS, "session", "start", check=3)
    assert refused.stderr.endswith(f"lc: tmux cannot be run (no more): {_NO_MORE}")
    sandbox.start()
    for verb, code in (("run", 3), ("exec", 125)):
        refused = sandbox.python("-c", _NO_THREAD, verb, *["true"][verb == "run" :], check=code)
        assert refused.stderr == f"lc: This call cannot go on (can't start new thread): {_NO_MORE}"
    refused = sandbox.python("-c", _NO_PROCESS, "run", "--detach", check=3)
    assert refused.stderr == f"lc: This call cannot go on (no more): {_NO_MORE}"
    # Most likely what would be ended is what there is too much of.
    stopped = sandbox.python("-c", _NO_PROCESS, "session", "stop")
    assert stopped.stdout.endswith(": ended\n")
    assert sandbox.status()["state"] == "dead"


@pytest.mark.parametrize(
    "statement",
    [
        "import lightcone",
        "from lightcone.cli.main import main; sys.argv[1:] = ['--help']; main()",
        "from lightcone.cli.main import main; sys.argv[1:] = ['session', 'status']; main()",
        "from lightcone.cli.main import main; sys.argv[1:] = ['session', '--help']; main()",
        "from lightcone.cli.main import main; sys.argv[1:] = ['exec', '--help']; main()",
        "from lightcone.cli.main import main; sys.argv[1:] = ['session', 'wait']; main()",
    ],
    ids=["package", "help", "session status", "session help", "exec help", "session wait"],
)
def test_everyday_calls_import_nothing_heavy(shared: Sandbox, statement: str) -> None:
    code = _LOADED.format(statement=statement, heavy=_HEAVY)
    result = shared.python("-c", code)
    assert json.loads(result.stderr.splitlines()[-1]) == []


def test_package_says_what_it_has() -> None:
    assert set(lightcone.__all__) == {"LightconeError", "__version__", "connect"}
    assert lightcone.connect.__module__ == "lightcone.session.client"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        lightcone.nonsense  # noqa: B018
