"""What shells offer when somebody types ``lc``, a part of a word, and TAB."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from libtmux import Server

from tests.helpers import Sandbox
from tests.terminal import Terminal

SPEC = """\
version: "0.0.14"
name: sandbox
outputs:
  - id: greeting
    type: data
    format: txt
    recipe:
      command: echo hello > {output}
  - id: unmade
    type: data
  - id: outside
    from: inner.deep
analyses:
  inner:
    path: inner
"""
INNER = """\
version: "0.0.14"
name: inner
outputs:
  - id: deep
    type: data
    format: txt
    recipe:
      command: echo hello > {output}
"""
# How each shell is started without the user's own files, and told of the completion.
SHELLS = {
    "bash": ("bash --noprofile --norc -i", 'eval "$(lc completion bash)"'),
    "zsh": ("zsh -f -i", 'autoload -U compinit; compinit -D; eval "$(lc completion zsh)"'),
    "fish": ("fish --no-config -i", "lc completion fish | source"),
}
HEAVY = ("distributed", "dask", "tornado", "libtmux", "rich", "cryptography", "astra", "psutil")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A project with two universes and a sub-analysis, and an ``lc`` in PATH."""
    box = Sandbox()
    try:
        (box.project / "astra.yaml").write_text(SPEC)
        (box.project / "inner").mkdir()
        (box.project / "inner" / "astra.yaml").write_text(INNER)
        (box.project / "universes").mkdir()
        for name in ("cold", "warm"):
            (box.project / "universes" / f"{name}.yaml").write_text(
                f"id: {name}\ndecisions: {{}}\n"
            )
        places = box.base / "bin"
        places.mkdir()
        script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lightcone "$@"\n'
        (places / "lc").write_text(script)
        (places / "lc").chmod(0o755)
        box.env["PATH"] = f"{places}:{box.env['PATH']}"
        box.env["PS1"] = "$ "
        yield box
    finally:
        box.close()


def _offered(box: Sandbox, line: str, cwd: Path | None = None) -> list[str]:
    """What is offered at the end of a line."""
    words = line.split(" ")
    env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_LC_COMPLETE": "bash_complete"}
    result = box.lc(env=env, cwd=cwd)
    assert result.stderr == ""
    return [row.partition(",")[2] for row in result.stdout.splitlines() if row]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lc s", ["status", "session"]),
        ("lc --v", ["--version"]),
        ("lc ru", ["run"]),
        ("lc run --f", ["--force", "--fail-fast"]),
        ("lc run ", ["greeting", "outside", "inner.deep"]),
        ("lc run g", ["greeting"]),
        ("lc run inner.", ["inner.deep"]),
        ("lc run greeting ", ["outside", "inner.deep"]),
        ("lc run co", ["cold/greeting", "cold/outside", "cold/inner.deep"]),
        ("lc run warm/i", ["warm/inner.deep"]),
        ("lc run -u warm co", []),
        ("lc run unm", []),
        ("lc run -u ", ["cold", "warm"]),
        ("lc run greeting --universe w", ["warm"]),
        ("lc status -u c", ["cold"]),
        ("lc verify --universe=c", ["cold"]),
        ("lc log warm/g", ["warm/greeting"]),
        ("lc log -u ", ["cold", "warm"]),
        ("lc session st", ["start", "status", "stop"]),
        ("lc session logs w", ["worker"]),
        ("lc session wait --for ", ["ready", "idle", "end"]),
        ("lc completion ", ["bash", "zsh", "fish"]),
        ("lc hook session-s", ["session-start"]),
    ],
)
def test_what_is_offered(box: Sandbox, line: str, offered: list[str]) -> None:
    assert _offered(box, line) == offered


def test_nothing_is_offered_where_nothing_can_be(box: Sandbox) -> None:
    """And nothing is said: whoever is typing would have it in the middle of a line."""
    broken = box.base / "broken"
    broken.mkdir()
    spec = broken / "astra.yaml"
    for content in (None, b"", b"outputs: [", b"outputs: 5", b"\xff", b"- id: a"):
        if content is not None:
            spec.write_bytes(content)
        assert _offered(box, "lc run ", cwd=broken) == []
        assert _offered(box, "lc run --fo", cwd=broken) == ["--force"]


def test_completing_imports_nothing_heavy(box: Sandbox) -> None:
    code = (
        "import json, sys\nfrom lightcone.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
    )
    for line in ("lc ", "lc run ", "lc run -u ", "lc log warm/"):
        words = line.split(" ")
        env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        result = box.python("-c", code, env={**env, "_LC_COMPLETE": "bash_complete"})
        assert result.stdout.count("plain,")
        assert json.loads(result.stderr) == []


@pytest.fixture(params=list(SHELLS))
def shell(box: Sandbox, outer: Server, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """A terminal with a real shell that knows how to complete ``lc``."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    start, told = SHELLS[request.param]
    terminal = Terminal(box, outer)
    try:
        terminal.shell(start)
        terminal.type(f"{told}; echo rea''dy", "Enter")
        terminal.shows("ready")
        yield terminal
    finally:
        terminal.close()


def test_in_a_real_shell(shell: Terminal) -> None:
    for typed, completed in (
        ("lc veri", "lc verify"),
        ("lc run --dry", "lc run --dry-run"),
        ("lc run gree", "lc run greeting"),
        ("lc run greeting inn", "lc run greeting inner.deep"),
        ("lc run warm/g", "lc run warm/greeting"),
        ("lc status -u co", "lc status -u cold"),
        ("lc session logs sch", "lc session logs scheduler"),
    ):
        # Where a word is complete, the next one begins.
        shell.type("-l", f"{typed}\tnext")
        shell.shows(f"{completed} next")
        shell.type("C-u")
    shell.type("-l", "lc run \t\t")
    shell.shows("greeting", "outside", "inner.deep")
    shell.type("C-u")


def test_files_of_a_command_in_a_real_shell(shell: Terminal) -> None:
    (shell.sandbox.project / "some-script.py").touch()
    shell.type("-l", "lc exec -- python some-\t")
    shell.shows("lc exec -- python some-script.py")
