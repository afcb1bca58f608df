"""A command reaches its recipe as the spec writes it, in any locale and of any length."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import do_without
from tests.run.analyses import Analysis, output

_LATIN = "en_US.ISO-8859-1"
# More than the kernel takes as one argument (MAX_ARG_STRLEN of execve(2)).
_LONG = 140_000


@pytest.fixture
def latin(analysis: Analysis) -> Iterator[dict[str, str]]:
    """The environment of a locale that is not UTF-8."""
    if shutil.which("localedef") is None:
        do_without("localedef is not installed (a part of the C library's programs)")
    place = analysis.box.base / "locales"
    place.mkdir(exist_ok=True)
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(place / _LATIN)],
        capture_output=True,
        check=False,
    )
    if not (place / _LATIN).is_dir():
        do_without(f"no locale could be made: {made.stderr.decode(errors='replace')}")
    yield {"LOCPATH": str(place), "LC_ALL": _LATIN}


def test_spec_reaches_recipe_and_files_as_utf8_in_another_locale(
    analysis: Analysis, latin: dict[str, str]
) -> None:
    analysis.write("data/naïve.txt", "from a file\n")
    analysis.spec(
        output("x", "echo 'naïve' > {output}; echo café ☃; touch résumé.txt"),
        output("y", 'cat {inputs.raw} > {output}; echo "$LC_ALL" >> {output}', ("raw",)),
        inputs=[{"id": "raw", "source": "data/naïve.txt"}],
    )
    analysis.run(env=latin)
    assert (analysis.root / "results/baseline/x.txt").read_bytes() == "naïve\n".encode()
    assert (analysis.root / "results/baseline/y.txt").read_text() == f"from a file\n{_LATIN}\n"
    assert "résumé.txt".encode() in os.listdir(os.fsencode(analysis.root))
    log = (analysis.root / "results/baseline/.lightcone/x/log.txt").read_bytes()
    assert "\ncafé ☃\n".encode() in log
    # What was made in one locale is good in every other.
    assert analysis.summary()["up_to_date"] == 2


def test_name_of_a_locale_that_is_no_text(alone: Analysis) -> None:
    """The session's programs start in it too."""
    alone.spec(output("x", 'printf %s "$LANG" > {output}'))
    alone.run(env={"LANG": "x\udcff"})
    assert (alone.root / "results/baseline/x.txt").read_bytes() == b"x\xff"


def test_command_longer_than_one_argument(analysis: Analysis) -> None:
    padding = "# " * (_LONG // 2)
    analysis.spec(
        output("short", "echo $0 $# > {output}; false | true; echo no >> {output}"),
        output("long", f"{padding}\necho $0 $# > {{output}}\necho $PPID >> {{output}}"),
        output("fails", f"{padding}\nfalse | cat > {{output}}\necho went on"),
    )
    failed = analysis.run("long", "fails", check=1)
    assert "baseline/fails: FAILED, exit code 1" in failed.stdout
    assert "went on" not in failed.stdout
    shell, parent = (analysis.root / "results/baseline/long.txt").read_text().splitlines()
    assert shell == f"{shutil.which('bash')} 0"
    assert int(parent) > 1
    analysis.run("short", check=1)
    assert not list(Path(analysis.root, "results").rglob(".command*"))


def test_many_inputs_gathered_by_one_command(analysis: Analysis) -> None:
    names = [f"{'x' * 200}{number}" for number in range(_LONG // 200)]
    for name in names:
        analysis.write(f"data/{name}", "1\n")
    inputs = [{"id": f"i{number}", "source": f"data/{name}"} for number, name in enumerate(names)]
    gather = output("all", "cat {inputs} > {output}", tuple(each["id"] for each in inputs))
    analysis.spec(gather, inputs=inputs)
    analysis.run()
    assert (analysis.root / "results/baseline/all.txt").read_text() == "1\n" * len(names)


def test_command_that_no_program_could_be_given(analysis: Analysis) -> None:
    analysis.spec(output("x", f"echo {'y' * os.sysconf('SC_ARG_MAX')} > {{output}}"))
    refused = analysis.run("--dry-run", check=2)
    assert refused.stderr.startswith("lc: Output 'x' in astra.yaml: the command with its paths has")
    assert refused.stderr.endswith("read the inputs in several steps, or from a directory.\n")
