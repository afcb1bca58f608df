"""What the scripts of a command bring in counts as what the command names."""

from __future__ import annotations

import ast
import json
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.state import reference_cache
from lightcone.state.commands import CommandScanner
from lightcone.state.dependencies import SourceFiles
from lightcone.state.languages import Language
from lightcone.state.readers import read_script
from lightcone.state.reference_cache import ReferenceCache
from lightcone.state.references import Kind, References
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
    "data/a.csv",
    "data/b.csv",
    "results/u/made.py",
    "venv/pyvenv.cfg",
    "venv/bin/tool.py",
    "venv/lib/python3/site-packages/installed.py",
]


SCRIPTS = {
    "src/paths.py": "import sys\nsys.path.insert(0, 'lib')\n",
    "Makefile": "PY = lib/tools.py\ninclude rules.mk\n\nconfig.yaml: data/a.csv\n"
    "\tpython $(PY) > $@\n",
    "build/makefile": "all:\n\ttrue\n",
    "rules.mk": "",
    "lib/fit.R": "source('lib/more.R')  # source('top.py')\nx <- read.csv(\"data/a.csv\")\n"
    "write.csv(x, 'data/b.csv')\ny <- readLines(file.path('.', 'config.yaml'))\n",
    "lib/more.R": "source('functions.R', chdir = TRUE)\n",
    "lib/functions.R": "f <- function(path) read.csv(path)\n",
    "notes/fit.ipynb": json.dumps(
        {
            "metadata": {"kernelspec": {"language": "python"}},
            "cells": [
                {"cell_type": "markdown", "source": "import helper"},
                {"cell_type": "code", "source": ["%matplotlib inline\n", "import local\n"]},
                {"cell_type": "code", "source": "DATA = Path('../data')\n!python -m app.core"},
                {"cell_type": "code", "source": "open(DATA / 'a.csv')\n%run ../top.py"},
            ],
        }
    ),
    "notes/local.py": "",
}


@pytest.fixture
def project(project: Project) -> Project:
    for name in FILES:
        project.write(name, "")
    for name, text in SCRIPTS.items():
        project.write(name, text)
    return project


def found(project: Project, command: str) -> set[str]:
    """The files that a command brings in, but for those shown to be written."""
    scanner = CommandScanner(project.root)
    return set(scanner.all_files(command)) - scanner.found(command).written


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
    ("importlib.import_module('helper')", "src/helper.py"),
    ("__import__('pkg.a')", "src/pkg/__init__.py src/pkg/a.py"),
    ("import_module(f'{name}')", ""),
    ("from importlib import import_module as im\nim('helper')", "src/helper.py"),
    ("resources.open_text('pkg', 'a.py')", "src/pkg/__init__.py src/pkg/a.py"),
    (
        "pkgutil.get_data('pkg.sub', 'deep.py')",
        "src/pkg/__init__.py src/pkg/sub/__init__.py src/pkg/sub/deep.py",
    ),
    ("model.files('config.yaml').path('x')", "config.yaml"),
    ("runpy.run_module('app.core')", "app/__init__.py app/core.py"),
    ("runpy.run_path('lib/tools.py')", "lib/tools.py"),
    ("exec(open('lib/tools.py').read())", "lib/tools.py"),
    ("spec_from_file_location('x', 'lib/tools.py')", "lib/tools.py"),
    ("sys.path.insert(0, 'lib')\nimport tools", "lib/tools.py"),
    ("sys.path.append(str(Path(__file__).parent.parent / 'lib'))\nimport tools", "lib/tools.py"),
    (
        "HERE = os.path.dirname(os.path.abspath(__file__))\n"
        "sys.path.insert(0, os.path.join(HERE, '..', 'lib'))\nimport tools",
        "lib/tools.py",
    ),
    ("sys.path += ['lib']\nimport tools", "lib/tools.py"),
    ("sys.path[0:0] = ['lib']\nimport tools", "lib/tools.py"),
    ("sys.path = ['lib'] + sys.path\nimport tools", "lib/tools.py"),
    ("site.addsitedir('lib')\nimport tools", "lib/tools.py"),
    ("sys.path.insert(0, sys.argv[1])\nimport tools", ""),
    ("import paths\nimport tools", "src/paths.py lib/tools.py"),
    ('"""\nimport helper\n"""', ""),
    ("open('config.yaml')", "config.yaml"),
    ("CONFIG = 'config.yaml'\nyaml.safe_load(open(CONFIG))", "config.yaml"),
    ("add_argument('--config', default='config.yaml')", "config.yaml"),
    ("(Path(__file__).resolve().parents[1] / 'config.yaml').read_text()", "config.yaml"),
    ("root = Path(__file__).parent\n(root.parent / 'config.yaml').open()", "config.yaml"),
    ("for name in ('a', 'b'):\n    open(f'data/{name}.csv')", "data/a.csv data/b.csv"),
    ("glob.glob('data/*.csv')", "data/a.csv data/b.csv"),
    ("Path('data').glob('a*')", "data/a.csv"),
    ("os.listdir('data')", "data/a.csv data/b.csv"),
    ("os.chdir('data')\nopen('a.csv')", "data/a.csv"),
    ("pd.read_csv('https://example.org/config.yaml')", ""),
    ("open('config.yaml', 'w').write('x')", ""),
    ("OUT = 'config.yaml'\nopen(OUT, mode='w')", ""),
    ("frame.to_csv('data/a.csv')", ""),
    ("plt.savefig(Path('data') / 'a.csv')", ""),
    ("Path('config.yaml').write_text('x')", ""),
    ("Path('config.yaml').open('w')", ""),
    ("shutil.copy('data/a.csv', 'data/b.csv')", "data/a.csv"),
    ("json.dump(json.load(open('config.yaml')), open('data/a.csv', 'w'))", "config.yaml"),
    ("subprocess.run(['python', 'lib/tools.py', '-x'])", "lib/tools.py"),
    ("subprocess.run('sh lib/env.sh | sort', shell=True)", "lib/env.sh"),
    ("subprocess.run(['python', '-m', 'app.core'])", "app/__init__.py app/core.py"),
    ("x = 'config.yaml is read'\nprint('config')", ""),
    ("print 'Python 2'\nimport helper", "src/helper.py"),
    ("open('results/u/made.py')", ""),
    ("open('.git/HEAD')", ""),
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
    ("python3 $PWD/lib/tools.py", "lib/tools.py"),
    ('python3 "$(pwd)/lib/tools.py"', "lib/tools.py"),
    ("python3 ${PWD}/lib/tools.py", "lib/tools.py"),
    ("python3 `pwd`/lib/tools.py", "lib/tools.py"),
    ("cat $PROJECT/config.yaml", "config.yaml"),
    ("cat ${CONFIG:-config.yaml}", "config.yaml"),
    ("D=lib; sh $D/env.sh", "lib/env.sh"),
    ("export D=lib E=env; sh ${D}/$E.sh", "lib/env.sh"),
    ("D=lib; cd $D && sh more/env.sh", "lib/more/env.sh"),
    ("cd lib; x; cd ../data; cat a.csv", "data/a.csv"),
    ("for f in a b; do cat data/$f.csv; done", "data/a.csv data/b.csv"),
    ("cat data/*.csv | sort", "data/a.csv data/b.csv"),
    ("cat data/?.csv", "data/a.csv data/b.csv"),
    ("cat data/[a]*", "data/a.csv"),
    ("cat **/*.csv /**/x /etc/*", "data/a.csv data/b.csv"),
    (
        "fit 'lib/**'",
        "lib/env lib/env.sh lib/fit.R lib/functions.R lib/helper.py lib/more.R "
        "lib/more/env.sh lib/tools.py config.yaml data/a.csv",
    ),
    ("cat results/*/made.py venv/lib/*/*/*.py", ""),
    ("cat data/{a,b}.csv", "data/a.csv data/b.csv"),
    ("cd data && cat *.csv", "data/a.csv data/b.csv"),
    ("fit 'data/*.csv'", "data/a.csv data/b.csv"),
    ("find lib -name '*.yaml'", ""),
    ("awk '{print $1*2}' config.yaml", "config.yaml"),
    ("prog @config.yaml --data=@data/a.csv", "config.yaml data/a.csv"),
    ("awk -fconfig.yaml", "config.yaml"),
    ("python app", "app/__main__.py"),
    (
        "python -c 'import importlib as i; i.import_module(\"app.core\")'",
        "app/__init__.py app/core.py",
    ),
    ("make all", "Makefile rules.mk lib/tools.py data/a.csv"),
    ("make -C build", "build/makefile"),
    ("make -C 'bui'ld", "build/makefile"),
    ("make --directory=build", "build/makefile"),
    ("make -s -C build", "build/makefile"),
    ("make -sC build all", "build/makefile"),
    ("make -Cbuild -s", "build/makefile"),
    ("make all -s", "Makefile rules.mk lib/tools.py data/a.csv"),
    ("sh -c 'make -sC build'", "build/makefile"),
    ("python3 -um app.core", "app/__init__.py app/core.py"),
    ("python3 -Bumapp.core", "app/__init__.py app/core.py"),
    ("python3 -uc 'import top'", "top.py"),
    ("cd build; make", "Makefile rules.mk lib/tools.py data/a.csv build/makefile"),
    ("env -C data cat a.csv", "data/a.csv"),
    ("cat ~+/config.yaml", "config.yaml"),
    ("D=lib; D+=/more; sh $D/env.sh", "lib/env.sh lib/more/env.sh"),
    ("D=lib; D=$D/more; sh $D/env.sh", "lib/env.sh lib/more/env.sh"),
    ("printf -v D lib; sh $D/env.sh", "lib/env.sh"),
    ("for f in lib/e*.sh; do sh $f; done", "lib/env.sh"),
    ("f() { cd data; cat a.csv; }; f", "data/a.csv"),
    ("(cd lib; :); (cd build; :); (cd notes; :); (cd src; :); (cd data; cat a.csv)", "data/a.csv"),
    ("xargs cat < config.yaml", "config.yaml"),
    ("eval 'sh lib/env.sh'", "lib/env.sh"),
    ("source <(cat lib/env.sh)", "lib/env.sh"),
    ("cat `cat config.yaml`", "config.yaml"),
    ("sh -c \"cat 'da'ta/a.csv\"", "data/a.csv"),
    ("sh -c 'D=lib; sh $D/env.sh'", "lib/env.sh"),
    ("python - <<'E'OF\nit = 'is'\nimport top\nEOF\ncat data/a.csv", "top.py data/a.csv"),
    ("cat <<EOF\nit's\nEOF\ncat 'da'ta/a.csv", "data/a.csv"),
    ("case $X in\n(data/b.csv|config.yaml) cat 'data'/a.csv;; top.py) ;; esac", "data/a.csv"),
    ("Rscript lib/fit.R", "lib/fit.R lib/more.R lib/functions.R data/a.csv config.yaml"),
    ("Rscript -e 'source(\"lib/more.R\")'", "lib/more.R lib/functions.R"),
    (
        "jupyter nbconvert --execute notes/fit.ipynb",
        "notes/fit.ipynb notes/local.py data/a.csv app/__init__.py app/core.py top.py",
    ),
]


WORDS = [
    ("python3 'src'/helper.py", "src/helper.py"),
    ("cat \"data\"/a.csv 'data'/'b'.csv", "data/a.csv data/b.csv"),
    ("D=data; cat \"$D\"/a.csv $D'/b.csv'", "data/a.csv data/b.csv"),
    ("D='da'ta; cat ${D}/a.csv", "data/a.csv"),
    ("cat c\\onfig.yaml", "config.yaml"),
    ("cat $'config.yaml' $'data/\\x'", "config.yaml"),
    ('cat $"config.yaml"', "config.yaml"),
    ("cat 'data'/[a]*", "data/a.csv"),
    ("cat da'ta/'?.csv", "data/a.csv data/b.csv"),
    ("cat '$'PROJECT/config.yaml '~'/config.yaml", ""),
    ("cat 'data/{a,b}.csv' data/\\{a,b\\}.csv", ""),
    ("cat 'data'/{a,'b'}.csv", "data/a.csv data/b.csv"),
    ("x --file='data'/a.csv,'data/b.csv'", "data/a.csv data/b.csv"),
    ("cat > 'data'/a.csv; tee \"data\"/b.csv < conf'ig'.yaml", "config.yaml"),
    ("cd 'da'ta; cat a.csv", "data/a.csv"),
    ("echo it's; cat data/a.csv", "data/a.csv"),
    ('echo "x; cat data/a.csv', "data/a.csv"),
    ('cat "$(cat "data/a.csv" \'config\'.yaml)"', "data/a.csv config.yaml"),
    ("cat data/a.csv # it's 'src'/helper.py", "data/a.csv"),
    ("cat data/\\\na.csv", "data/a.csv"),
]


@pytest.mark.parametrize(("command", "files"), WORDS)
def test_words_are_those_of_bash(project: Project, command: str, files: str) -> None:
    if "#" in command:
        # A file that only a remark names may count; a script's remark does not.
        project.write("run.sh", command)
        assert found(project, "sh run.sh") == {"run.sh", *files.split()}
    else:
        assert found(project, command) == set(files.split())


NOT_FOLLOWED = [
    ("sh $D", "sh $D"),
    ("cat $D", "$D"),
    ("cat < $D", "$D"),
    ("read D < config.yaml; cat $D", "${D}"),
    ("mapfile -t A < config.yaml; cat ${A[@]}", "${A[@]}"),
    ("printf -v D %s x; sh $D/d.sh", "${D}/d.sh"),
    ("while read f; do sh $f; done < config.yaml", "sh $f"),
    ("xargs cat < config.yaml", "xargs cat"),
    ("for ((i=1; i<=3; i++)); do cat data/$i.csv; done", "data/${i}.csv"),
    ("i=1; while [ $i -le 3 ]; do cat data/$i.csv; i=$((i+1)); done", "data/${i}.csv"),
    ("i=1; ((i++)); cat data/$i.csv", "data/${i}.csv"),
    ("find lib -name '*.py' -exec python {} ';'", "find lib -name *.py -exec python {} ;"),
    ('eval "sh $D"', "eval sh $D"),
    ("source <(cat config.yaml)", "source <(cat config.yaml)"),
    ("cat config.yaml | sh", "sh"),
    ("cat $(cat config.yaml)", "$(cat config.yaml)"),
    ("cat `cat config.yaml`", "$(cat config.yaml)"),
    ("cd $D; cat x", "cd $D"),
    ("python -m $M", "python -m $M"),
    ("bash -c 'sh $D'", "sh $D"),
    ("python -c 'open(x)'", "open(x)"),
    ("python src/run.py", "subprocess.run(['sh', x])"),
    ("python src/system.py", "os.system(x)"),
    ("python src/files.py", "files('pkg')"),
    ('A=(x y); cat ${A[@]} $HOME/x $? "$1" $SLURM_JOB_ID; echo $D; x=$D', ""),
    ("awk '{print $D}' config.yaml; perl -e 'eval $D; read $D'", ""),
]


@pytest.mark.parametrize(("command", "text"), NOT_FOLLOWED)
def test_what_is_not_followed_is_listed(project: Project, command: str, text: str) -> None:
    project.write("src/run.py", "import subprocess\nsubprocess.run(['sh', x])\n")
    project.write("src/system.py", "import os\nos.system(x)\n")
    project.write("src/files.py", "from importlib.resources import files\nfiles('pkg')\n")
    project.write("run.sh", command)
    for each in (command, "sh run.sh"):
        listed = [
            line.partition(" in ")[0]
            for line in CommandScanner(project.root).found(each).not_followed
        ]
        assert text in listed if text else listed in ([], ["$HOME/x"]), listed


@pytest.mark.parametrize(
    "command",
    ["cat " + "'a b'\"c\"" * 50_000, "cat '" + "a\"b" * 100_000, "$(" * 200_000, '"$(' * 100_000,
     "cat <<a\n" * 50_000, "${" * 200_000, "a|" * 200_000 + "esac", "\n" * 400_000 + "esac",
     "x=" + "$x" * 100_000, "`'" * 200_000, "cat " + "'data/a b.csv' " * 30_000],
    ids=lambda command: repr(command[:8]),
)  # fmt: skip
def test_long_commands_take_linear_time(project: Project, command: str) -> None:
    began = time.process_time()
    CommandScanner(project.root).found(command)
    # Half a second where nothing else runs; a quadratic reader takes minutes.
    assert time.process_time() - began < 10


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
    ("python src/helper.py --x config.yaml > data/a.csv", "src/helper.py config.yaml"),
    ('D="lib"\nsh "$D"/env.sh', "lib/env.sh"),
    ('for f in a b; do cat "data/$f.csv"; done', "data/a.csv data/b.csv"),
    ("cat data/*.csv", "data/a.csv data/b.csv"),
    ("case $1 in\n  *.yaml) x;;\nesac", ""),
    (
        'DIR="$( cd -- "$( dirname -- "${BASH_SOURCE[0]}" )" &> /dev/null && pwd )"\n'
        'sh "$DIR/more/env.sh"',
        "lib/more/env.sh",
    ),
    ('ROOT=$(dirname $(dirname $(realpath "$0")))\ncat $ROOT/config.yaml', "config.yaml"),
    ("python - <<EOF\nimport top\nopen('config.yaml')\nEOF", "top.py config.yaml"),
    ("echo it is # data/a.csv's\ncat data/b.csv", "data/b.csv"),
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


def test_each_script_is_parsed_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    original = read_script

    def count(language: Language, content: bytes) -> References:
        parsed.append(content.decode().strip())
        return original(language, content)

    monkeypatch.setattr("lightcone.state.readers.read_script", count)
    monkeypatch.setattr(reference_cache, "_memory", {})
    project.write("src/helper.py", f"x = {'1 + ' * 200}1")
    project.write("src/fit.py", f"import helper, pkg.a{' ' * 600}")
    project.write("src/plot.py", "import helper")
    kept = project.root / "kept/scripts.json"
    scanner = CommandScanner(project.root, kept)
    for command in ("python src/fit.py", "python src/plot.py -x", "python src/fit.py -y"):
        scanner.all_files(command)
    # The two that are empty are one.
    assert len(parsed) == 4
    scanner.save()
    reference_cache._memory.clear()
    parsed.clear()
    expected = {"src/fit.py", "src/helper.py", "src/pkg/__init__.py", "src/pkg/a.py"}
    assert set(CommandScanner(project.root, kept).all_files("python src/fit.py")) == expected
    assert parsed == []
    content = kept.read_text()
    for damage in ("", "[]", '{"version": 1}', content.replace('"import"', '"other"')):
        kept.write_text(damage)
        reference_cache._memory.clear()
        assert set(CommandScanner(project.root, kept).all_files("python src/fit.py")) == expected


def imported_by_the_book(path: Path) -> set[str]:
    """The modules that Python itself reads in a text."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{each.name}" for each in node.names if each.name != "*"}
            names |= {node.module or "" for each in node.names if each.name == "*"}
    return names


@pytest.mark.parametrize("module", ["asyncio/__init__", "json/__init__", "argparse", "tarfile"])
def test_nothing_is_missed_in_real_modules(module: str) -> None:
    path = Path(os.__file__).parent / f"{module}.py"
    found = ReferenceCache(None).read(str(path)).found
    imported = {each.text for each in found if each.kind is Kind.MODULE and each.text[0] != "."}
    assert imported_by_the_book(path) - imported == set()
    assert imported - imported_by_the_book(path) <= set(sys.stdlib_module_names)


@given(st.text(st.sampled_from("import from.\n\t ;:'\"(),#$/-mcd sourcePYTHONPATH=ahelper")))
def test_any_text(project: Project, text: str) -> None:
    project.write("any.py", text)
    project.write("any.sh", text)
    assert {"any.py", "any.sh"} <= found(project, "python any.py; sh any.sh")


def test_results_that_are_no_inputs_are_listed(project: Project) -> None:
    project.write("results/ref.csv", "")
    project.write("results/baseline/x", "")
    output = project.spec(
        "outputs:\n- id: x\n  format: ''\n"
        "  recipe: {command: 'cat results/ref.csv results/none.csv > {output}'}\n"
    ).output("x")
    listed = SourceFiles(project.root).found(output).not_followed
    assert listed == ("results/ref.csv in the command: a result counts only as an input",)
