"""What the scripts of a command bring in counts as what the command names."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.state import imports
from lightcone.state.dependencies import CommandScanner
from tests.projects import Project

FILES = [
    "src/helper.py",
    "src/json.py",
    "src/pkg/__init__.py",
    "src/pkg/a.py",
    "src/pkg/b.py",
    "src/pkg/sub/__init__.py",
    "src/pkg/sub/deep.py",
    "src/space/inner.py",
    "lib/tools.py",
    "lib/helper.py",
    "lib/env.sh",
    "lib/env",
    "lib/more/env.sh",
    "top.py",
    "types.py",
    "space/other.py",
    "app/__init__.py",
    "app/__main__.py",
    "app/core.py",
    "config.yaml",
    "results/u/made.py",
    "venv/pyvenv.cfg",
    "venv/bin/tool.py",
    "venv/lib/python3/site-packages/installed.py",
]


@pytest.fixture
def project(project: Project) -> Project:
    for name in FILES:
        project.write(name, "")
    return project


def found(project: Project, command: str) -> set[str]:
    return set(CommandScanner(project.root).all_files(command))


PYTHON = [
    ("import helper", "src/helper.py"),
    ("import numpy as np, helper as h, top", "src/helper.py top.py"),
    ("\timport  helper # the one beside", "src/helper.py"),
    ("x = 1; import helper", "src/helper.py"),
    ("try: import helper\nexcept ImportError: pass", "src/helper.py"),
    ("if x:\n    from helper import (\n        f,  # one\n        g,\n    )", "src/helper.py"),
    ("import pkg", "src/pkg/__init__.py"),
    ("import pkg.a", "src/pkg/__init__.py src/pkg/a.py"),
    ("from pkg import a, \\\n    b as other", "src/pkg/__init__.py src/pkg/a.py src/pkg/b.py"),
    ("from pkg import *", "src/pkg/__init__.py"),
    ("from pkg import absent", "src/pkg/__init__.py"),
    (
        "from pkg.sub.deep import f",
        "src/pkg/__init__.py src/pkg/sub/__init__.py src/pkg/sub/deep.py",
    ),
    (
        "import pkg.sub.deep.not_there",
        "src/pkg/__init__.py src/pkg/sub/__init__.py src/pkg/sub/deep.py",
    ),
    ("import space.inner, space.other", "src/space/inner.py space/other.py"),
    ("from lib import tools", "lib/tools.py"),
    ("import json, types", "src/json.py"),  # beside the script it hides the standard library's
    ("from . import helper", "src/helper.py"),
    ("from .pkg.a import f", "src/pkg/__init__.py src/pkg/a.py"),
    ("from .. import top", "top.py"),
    ("import installed, made", ""),
    ("importlib.import_module('helper')", ""),
    ("# import helper", ""),
    ("important helper\nfrom\nimport", ""),
    ("from here to there we import nothing", ""),
    ("\xef\xbb\xbf\x00 import helper", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "files"), PYTHON)
def test_python(project: Project, text: str, files: str) -> None:
    project.write("src/fit.py", text)
    assert found(project, "python src/fit.py") == {"src/fit.py", *files.split()}


def test_modules_are_looked_for_where_the_script_is_that_runs(project: Project) -> None:
    project.write("src/fit.py", "from lib import tools")
    project.write("lib/tools.py", "import helper")
    assert found(project, "python src/fit.py") == {"src/fit.py", "lib/tools.py", "src/helper.py"}
    assert found(project, "python lib/tools.py") == {"lib/tools.py", "lib/helper.py"}


def test_relative_imports_are_of_the_package(project: Project) -> None:
    project.write("src/fit.py", "import pkg.sub.deep")
    project.write("src/pkg/sub/deep.py", "from ..a import x\nfrom ...helper import y\n")
    project.write("src/pkg/a.py", "from . import b\n")
    assert found(project, "python src/fit.py") == {
        "src/fit.py",
        "src/helper.py",
        "src/pkg/__init__.py",
        "src/pkg/a.py",
        "src/pkg/b.py",
        "src/pkg/sub/__init__.py",
        "src/pkg/sub/deep.py",
    }


def test_circles_end(project: Project) -> None:
    project.write("src/helper.py", "import fit, helper")
    project.write("src/fit.py", "import helper")
    assert found(project, "python src/fit.py") == {"src/fit.py", "src/helper.py"}


COMMANDS = [
    ("python -m app", "app/__init__.py app/__main__.py"),
    ("python -u -m app.core --fast", "app/__init__.py app/core.py"),
    ("srun python3.12 -mapp.core", "app/__init__.py app/core.py"),
    ("python -m pkg.a", "src/pkg/__init__.py src/pkg/a.py"),
    ("cd lib && python -m tools", "lib/tools.py"),
    ("cd ./ && cd lib/../app && python -m core; python -m top", "app/core.py top.py"),
    ("PYTHONPATH=./lib/:. python -m tools", "lib/tools.py"),
    ("cd .. && python -m outside", ""),
    ("python -m json.tool config.yaml", "config.yaml"),
    ("PYTHONPATH=lib:$PYTHONPATH python -c 'import tools, top'", "lib/tools.py top.py"),
    ("export PYTHONPATH=$PWD/lib; python -m tools", "lib/tools.py"),
    ('python -c "from helper import f; f()"', "src/helper.py"),
    ("python - <<EOF\nimport top\nEOF", "top.py"),
    ("git commit -m fix", ""),
    ("venv/bin/python venv/bin/tool.py", ""),
    (". lib/env.sh && echo", "lib/env.sh"),
]


@pytest.mark.parametrize(("command", "files"), COMMANDS)
def test_commands(project: Project, command: str, files: str) -> None:
    assert found(project, command) == set(files.split())


SHELL = [
    ("source lib/env.sh", "lib/env.sh"),
    (". 'lib/env' && x", "lib/env"),
    ("if x; then . lib/env; fi", "lib/env"),
    ('. "$(dirname "$0")/more/env.sh"', "lib/more/env.sh"),
    ('source "${BASH_SOURCE%/*}/env"', "lib/env"),
    ("HERE=$(cd $(dirname $0); pwd)\nbash $HERE/more/env.sh", "lib/more/env.sh"),
    ("cd lib/more\n./env.sh", "lib/more/env.sh"),
    ("python src/helper.py --x config.yaml > top.txt", "src/helper.py"),
    ("exec \\\n  ./top.py", "top.py"),
    ("python -m app.core", "app/__init__.py app/core.py"),
    ("export PYTHONPATH=lib\npython -m tools", "lib/tools.py"),
    ("PYTHONPATH=lib python src/uses.py", "src/uses.py lib/tools.py"),
    ("# . lib/env.sh", ""),
    ("source $ENVIRONMENT\n. ~/.profile\n. /etc/profile\nsource", ""),
    ("source lib/$NAME.sh; sh results/u/made.py", ""),
]


@pytest.mark.parametrize("name", ["lib/run.sh", "lib/run"])
@pytest.mark.parametrize(("text", "files"), SHELL)
def test_shell(project: Project, name: str, text: str, files: str) -> None:
    project.write("src/uses.py", "import tools")
    project.write(name, f"#!/usr/bin/env bash\n{text}\n")
    assert found(project, name) == {name, *files.split()}


def test_absolute_paths_in_a_script(project: Project) -> None:
    project.write("run.sh", f"bash {project.root}/lib/env.sh")
    assert found(project, "sh run.sh") == {"run.sh", "lib/env.sh"}


def test_a_script_may_have_any_name(project: Project) -> None:
    project.write("bin/fit", "#!/usr/bin/python3 -u\nimport sys\nfrom app import core\n")
    assert found(project, "bin/fit") == {"bin/fit", "app/__init__.py", "app/core.py"}
    project.write("bin/fit", "#!/usr/bin/perl\nimport top\n")
    assert found(project, "bin/fit") == {"bin/fit"}


def test_a_file_of_one_line(project: Project) -> None:
    project.write("src/fit.py", "x;" * 1_000_000 + "import helper;" * 10_000)
    assert found(project, "python src/fit.py") == {"src/fit.py", "src/helper.py"}


def test_each_script_is_read_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = imports._read

    def count(path: str) -> imports._References:
        read.append(os.path.basename(path))
        return original(path)

    monkeypatch.setattr(imports, "_read", count)
    project.write("src/fit.py", "import helper, pkg.a")
    project.write("src/plot.py", "import helper")
    scanner = CommandScanner(project.root)
    for command in ("python src/fit.py", "python src/plot.py -x", "python src/fit.py -y"):
        scanner.all_files(command)
    assert sorted(read) == ["__init__.py", "a.py", "fit.py", "helper.py", "plot.py"]


def imported_by_the_book(path: Path) -> set[str]:
    """The modules that Python itself reads in a text."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{each.name}" for each in node.names if each.name != "*"}
    return names


@pytest.mark.parametrize("module", ["asyncio/__init__", "json/__init__", "argparse", "tarfile"])
def test_nothing_is_missed_in_real_modules(module: str) -> None:
    path = Path(os.__file__).parent / f"{module}.py"
    imported = {".".join(parts) for dots, parts in imports._read(str(path)).modules if not dots}
    assert imported_by_the_book(path) - imported == set()
    assert imported - imported_by_the_book(path) <= set(sys.stdlib_module_names)


@given(st.text(st.sampled_from("import from.\n\t ;:'\"(),#$/-mcd sourcePYTHONPATH=ahelper")))
def test_any_text(project: Project, text: str) -> None:
    project.write("any.py", text)
    project.write("any.sh", text)
    assert {"any.py", "any.sh"} <= found(project, "python any.py; sh any.sh")
