"""What users read names neither the engine nor the terminal's program, nor any one machine."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Sandbox

ROOT = Path(__file__).resolve().parent.parent
ENGINE = re.compile(r"\b(dask|distributed|tornado|tmux|libtmux)\b", re.IGNORECASE)
# Variables that a user sets or that are printed for other programs have the names they have.
VARIABLE = re.compile(r"\b(DASK|TMUX)(_[A-Z_]+)?\b")
# Where the name is what is wrong or what is asked about: the program that a session cannot do
# without is missing or failing, and the doctor looks for it.
MAY_NAME = {"session/terminal/tmux.py", "session/doctor.py", "cli/doctor.py"}
# Names of packages in the engine's own configuration, read by nobody else.
MAY_HAVE_KEYS = {"engine/command_lines.py"}


def _modules() -> list[str]:
    package = ROOT / "lightcone"
    return sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))


def _literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text in a module but its docstrings, with its line."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, "" if id(node) in docstrings else node.value


@pytest.mark.parametrize("name", sorted(set(_modules()) - MAY_NAME))
def test_no_message_names_the_engine(name: str) -> None:
    """A text with a space in it is for people; one without is a name of something."""
    tree = ast.parse((ROOT / "lightcone" / name).read_text(encoding="utf-8"))
    found = [
        f"line {line}: {text}"
        for line, text in _literals(tree)
        if " " in text.strip() and ENGINE.search(VARIABLE.sub("", text))
    ]
    assert found == []


@pytest.mark.parametrize("name", sorted(set(_modules()) - MAY_HAVE_KEYS))
def test_no_key_names_the_engine(name: str) -> None:
    tree = ast.parse((ROOT / "lightcone" / name).read_text(encoding="utf-8"))
    keys = [
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]
    assert [key for key in keys if ENGINE.search(key)] == []


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def test_what_is_really_said_does_not_name_the_engine(shared: Sandbox) -> None:
    for arguments in (["run"], ["status"], ["session", "status"], ["session", "list"]):
        for options in ([], ["--json"]):
            result = shared.lc(*arguments, *options)
            said = result.stdout + result.stderr
            if not options:
                assert not ENGINE.search(said), said
            for line in said.splitlines() if options else ():
                assert not any(ENGINE.search(key) for key in _keys(json.loads(line))), line
    shared.lc("exec", "--", "true")
    assert not ENGINE.search(shared.lc("nothing", check=2).stderr)


def _tracked() -> list[Path]:
    listing = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    try:
        result = subprocess.run(listing, capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if result.returncode != 0:
        pytest.skip("this is not a checkout")
    names = result.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_nothing_in_the_tree_is_about_one_machine() -> None:
    """No absolute path of the machine it is written on, nor the name of a registry's host."""
    # A place that any machine has says nothing about this one.
    own = [re.escape(each) for each in {str(ROOT), sys.prefix} - {"/usr", "/usr/local", "/app"}]
    homes = {str(Path.home()), "/" + "work", "/" + "root"} - {"/"}
    own += [re.escape(f"{directory}/") for directory in homes]
    hosts = ["pypi", "pythonhosted", "npmjs", "anaconda", "crates", "rubygems", "mirrors?"]
    pattern = re.compile(
        rf"(?<![\w.~])({'|'.join(own)})" + rf"|\b({'|'.join(hosts)})\.(org|io|com|net)\b"
    )
    found = [
        f"{path.relative_to(ROOT)}, line {number}: {line.strip()[:100]}"
        for path in _tracked()
        for number, line in enumerate(_lines(path), 1)
        if pattern.search(line)
    ]
    assert found == []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []
