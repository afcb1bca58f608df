"""Settings: a project's file, and the environment over it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.errors import SettingsError
from lightcone.project.settings import SETTINGS_FILE, OutputSettings, Settings, load_settings


def load(root: Path, text: str | None = None, **environ: str) -> Settings:
    if text is not None:
        (root / SETTINGS_FILE).write_text(text, encoding="utf-8")
    return load_settings(root, environ)


def test_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings(1800.0, None, None, 10.0, "refuse", "auto")
    assert load(tmp_path, "# nothing set\n[session]\n[run]\n") == Settings()


def test_a_file(tmp_path: Path) -> None:
    text = """
[session]
idle_timeout = "2h"
forgotten_timeout = "3d"
scratch = "scratch"
[run]
grace = 3
oversized = "clamp"
[results]
layout = "file"
depend_on = ["config/*.yaml", "src/**/*.R"]
"""
    assert load(tmp_path, text) == Settings(
        idle_timeout=7200.0,
        scratch=tmp_path / "scratch",
        grace=3.0,
        oversized="clamp",
        layout="file",
        depend_on=("config/*.yaml", "src/**/*.R"),
        forgotten_timeout=3 * 86400.0,
    )


def test_the_environment_wins(tmp_path: Path) -> None:
    text = '[session]\nidle_timeout = "2h"\nscratch = "/a"\n'
    found = load(
        tmp_path,
        text,
        LIGHTCONE_IDLE_TIMEOUT="5m",
        LIGHTCONE_SCRATCH="/b",
        LIGHTCONE_RUNTIME_DIR="/c",
    )
    assert (found.idle_timeout, found.scratch, found.runtime_dir) == (
        300.0,
        Path("/b"),
        Path("/c"),
    )
    empty = {"LIGHTCONE_IDLE_TIMEOUT": "", "LIGHTCONE_SCRATCH": "", "LIGHTCONE_RUNTIME_DIR": ""}
    found = load(tmp_path, text, **empty)
    assert (found.idle_timeout, found.scratch, found.runtime_dir) == (7200.0, Path("/a"), None)


def test_directories_may_name_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/fast/me")
    monkeypatch.setenv("HOME", "/home/me")
    assert load(tmp_path, LIGHTCONE_SCRATCH="$SCRATCH/lc").scratch == Path("/fast/me/lc")
    assert load(tmp_path, LIGHTCONE_SCRATCH="~/lc").scratch == Path("/home/me/lc")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "The settings file {file} cannot be read: "),
        (
            "[sesion]",
            "{file} has an unknown section [sesion]: did you mean 'session'? known are ",
        ),
        ("run = 3", "'run' in {file} must be a section: write [run]."),
        ("[run]\nspeed = 9", "{file} has an unknown setting 'speed' in [run]: known are grace, "),
        (
            '[session]\nidle_timeout = "soon"',
            "'idle_timeout' in {file}: 'soon' is not a duration (write 90, 30m or 1h30m).",
        ),
        (
            '[session]\nforgotten_timeout = "later"',
            "'forgotten_timeout' in {file}: 'later' is not a duration (write 90, 30m or 1h30m).",
        ),
        (
            "[session]\nidle_timeout = 0",
            "'idle_timeout' in {file} is 0: it must be more than zero.",
        ),
        ("[session]\nidle_timeout = true", "'idle_timeout' in {file}: True is not a duration"),
        ("[session]\nscratch = 3", "'scratch' in {file} is 3: give a directory's path."),
        (
            '[results]\nlayout = "tree"',
            "'layout' in {file} is 'tree': use one of auto, file, directory.",
        ),
        ("[run]\noversized = []", "'oversized' in {file} is []: use one of refuse, clamp."),
        (
            '[results]\ndepend_on = "a"',
            "'depend_on' in {file} is 'a': give a list of patterns, as in",
        ),
        (
            "[results]\ndepend_on = [1]",
            "'depend_on' in {file} is [1]: give a list of patterns, as in",
        ),
        ('[results]\ndepend_on = [""]', "'depend_on' in {file} is ['']: give a list of patterns"),
        (
            '[results]\ndepend_on = ["a", "/etc/*"]',
            "'depend_on' in {file} has '/etc/*', which is outside the project: declare such files ",
        ),
        (
            '[results]\ndepend_on = ["b/../../c"]',
            "'depend_on' in {file} has 'b/../../c', which is outside the project: declare such ",
        ),
        ('[run]\ngrace = "x"', "'grace' in {file}: 'x' is not a duration"),
        ('[run]\nobserve = "on"', "'observe' in {file} is 'on': write true or false."),
        (
            "[run]\nobserv = true",
            "{file} has an unknown setting 'observ' in [run]: did you mean 'observe'? known are ",
        ),
        (
            "[output.x]\nobserve = false",
            "{file} has an unknown section [output]: did you mean 'outputs'? known are [session], ",
        ),
        (
            "[outputs.x]\nobserved = false",
            "[outputs.x] in {file} has an unknown setting 'observed': did you mean 'observe'? ",
        ),
        (
            '[outputs.fit]\nresume = "yes"',
            "'resume' in {file} is 'yes': write true or false.",
        ),
        ("[outputs.x]\nobserve = 1", "'observe' in {file} is 1: write true or false."),
        ("[outputs]\nobserve = true", "'observe' under [outputs] in {file} belongs to no output: "),
        ("outputs = 3", "'outputs' in {file} must be a section: write [outputs]."),
    ],
)
def test_a_bad_value_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(sentence.format(file=tmp_path / SETTINGS_FILE))
    assert message.endswith(".")
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_a_bad_variable_says_where(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"^'idle_timeout' in LIGHTCONE_IDLE_TIMEOUT: 'x' is not"
    ):
        load(tmp_path, LIGHTCONE_IDLE_TIMEOUT="x")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path)
    os.rmdir(tmp_path / SETTINGS_FILE)
    (tmp_path / SETTINGS_FILE).write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)


@given(st.text(st.characters(codec="utf-8")))
def test_any_file_is_read_or_refused(tmp_path: Path, text: str) -> None:
    try:
        load(tmp_path, text)
    except SettingsError as error:
        assert SETTINGS_FILE in str(error)


def test_settings_of_single_outputs(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        "[run]\nobserve = true\n"
        "[outputs.x]\nobserve = false\nresume = true\n"
        '[outputs."u/x"]\nobserve = true\n'
        "[outputs.sub.y]\nobserve = false\n"
        '[outputs."other.y"]\nobserve = false\n',
    )
    assert found.observe
    assert set(found.outputs) == {"x", "u/x", "sub.y", "other.y"}
    assert not found.for_output("v", "x").observe
    assert found.for_output("v", "x").resume
    assert found.for_output("u", "x") == OutputSettings(observe=True, resume=True)
    assert not found.for_output("u", "sub.y").observe
    assert found.for_output("u", "z").observe
