"""``lc init``: a new project runs as it is, and one that is there keeps what it has."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.scaffold.hooks import with_hooks, without_hooks
from lightcone.worker.observation import why_not_observed
from tests.helpers import Sandbox

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hubble"
SETTINGS = ".claude/settings.json"
OWN = """\
{
    "permissions": {"allow": ["Bash(lc run:*)"], "größe": 1.5},
    "hooks": {
        "SessionEnd": [
            {"hooks": [{"type": "command", "command": "echo bye"}]}
        ],
        "Stop": []
    },
    "model": null,
    "a": [1, {"z": 1, "b": 2}]
}
"""


def _tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _init(box: Sandbox, *arguments: str, cwd: Path | None = None) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(box.lc("init", "--json", *arguments, cwd=cwd).stdout)
    assert list(told) == ["directory", "created", "changed", "removed", "kept", "next"]
    return told


def _commands(settings_file: Path) -> list[str]:
    hooks = json.loads(settings_file.read_text())["hooks"]
    return [
        hook["command"] for groups in hooks.values() for group in groups for hook in group["hooks"]
    ]


def test_new_project_runs_as_it_is(sandbox: Sandbox) -> None:
    root = sandbox.base / "new" / "my analysis"
    shown = sandbox.lc("init", "new/my analysis", cwd=sandbox.base).stdout
    sandbox.projects.append(root)
    assert "created  astra.yaml\n" in shown
    assert "\n  cd 'new/my analysis'\n  lc run " in shown
    made = _tree(root)
    if not why_not_observed(None):
        assert made["lightcone.toml"] == b"[run]\nobserve = true\n"
    assert sandbox.lc("run", cwd=root).stdout.splitlines()[-1].startswith("lc: 4 made in ")
    sandbox.lc("status", "--check", cwd=root)
    assert (root / "results/mean/centre.txt").read_text() == "74.400\n"
    assert (root / "results/median/centre.txt").read_text() == "74.050\n"
    report = (root / "results/median/report.md").read_text().splitlines()
    assert report[0] == "# Distances from 74.050 mm"
    assert len(report) == 4 + 12
    assert "12 measurements" in sandbox.lc("log", "mean/report", cwd=root).stdout
    # Its own ideas of what depends on what are right.
    data = root / "data/lengths.txt"
    data.write_text(data.read_text() + "74.2\n")
    assert sandbox.lc("run", cwd=root).stdout.splitlines()[-1].startswith("lc: 4 made in ")
    assert {name: text for name, text in _tree(root).items() if name in made} == {
        **made,
        "data/lengths.txt": data.read_bytes(),
    }


def test_twice_is_once(sandbox: Sandbox) -> None:
    root = sandbox.base / "new"
    root.mkdir()
    first = _init(sandbox, "--agents", cwd=root)
    assert first["directory"] == str(root)
    assert first["changed"] == first["kept"] == first["removed"] == []
    assert first["next"][0] == "lc run"
    before = _tree(root)
    assert sorted(before) == sorted(first["created"])
    again = _init(sandbox, "--agents", cwd=root)
    assert again["created"] == again["changed"] == again["removed"] == []
    assert again["kept"] == [SETTINGS, ".gitignore", "AGENTS.md", "CLAUDE.md"]
    assert _tree(root) == before
    assert sandbox.lc("init", "--agents", cwd=root).stdout.startswith("kept     .gitignore\n")


def test_what_a_stopped_call_left_out_is_made_by_the_next(sandbox: Sandbox) -> None:
    root = sandbox.base / "new"
    created = _init(sandbox, str(root))["created"]
    whole = _tree(root)
    for name in ("astra.yaml", "universes/mean.yaml", SETTINGS):
        (root / name).unlink()
    again = _init(sandbox, str(root))
    assert sorted(again["created"] + again["kept"]) == created
    assert _tree(root) == whole


def test_example_gets_what_it_lacks_and_keeps_the_rest(sandbox: Sandbox) -> None:
    root = sandbox.base / "hubble"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns(".venv", "results", "figures"))
    before = _tree(root)
    told = _init(sandbox, "hubble", cwd=sandbox.base)
    assert (told["created"], told["kept"]) == ([SETTINGS], [".gitignore"])
    assert told["next"] == ["cd hubble", "lc run", "lc status"]
    after = _tree(root)
    del after[SETTINGS]
    assert after == before
    assert _init(sandbox, str(root), "--no-hooks")["removed"] == [SETTINGS]
    assert _tree(root) == before
    assert not (root / ".claude").exists()


def test_project_is_found_from_below(sandbox: Sandbox) -> None:
    below = sandbox.project / "src" / "deep"
    below.mkdir(parents=True)
    told = _init(sandbox, cwd=below)
    assert told["directory"] == str(sandbox.project)
    assert told["created"] == [SETTINGS, ".gitignore"]
    # A directory that is named is the one that is meant.
    assert _init(sandbox, ".", cwd=below)["directory"] == str(below)
    assert (below / "astra.yaml").exists()


def test_own_settings_are_kept(sandbox: Sandbox) -> None:
    file = sandbox.project / SETTINGS
    file.parent.mkdir()
    file.write_text(OWN)
    file.chmod(0o660)
    assert _init(sandbox)["changed"] == [SETTINGS]
    merged = json.loads(file.read_text())
    assert list(merged) == ["permissions", "hooks", "model", "a"]
    assert list(merged["hooks"]) == ["SessionEnd", "Stop", "SessionStart"]
    commands = _commands(file)
    assert commands[0] == "echo bye"
    assert [command.split(" 2>")[0] for command in commands[1:]] == [
        "lc hook session-end",
        "lc hook session-start",
    ]
    assert file.read_text().startswith('{\n    "permissions"')
    assert "größe" in file.read_text()
    assert file.read_text().endswith("}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o660
    before = file.read_bytes()
    assert SETTINGS in _init(sandbox)["kept"]
    assert file.read_bytes() == before
    assert _init(sandbox, "--no-hooks")["changed"] == [SETTINGS]
    assert json.dumps(json.loads(file.read_text())) == json.dumps(json.loads(OWN))
    before = file.read_bytes()
    assert SETTINGS in _init(sandbox, "--no-hooks")["kept"]
    assert file.read_bytes() == before


def test_hooks_that_somebody_has_changed_are_still_ours(sandbox: Sandbox) -> None:
    file = sandbox.project / SETTINGS
    file.parent.mkdir()
    own = {"type": "command", "command": "mylc hook session-end"}
    end = {"type": "command", "command": "/opt/bin/lc hook session-end", "timeout": 60}
    start = {"type": "command", "command": "lc", "args": ["hook", "session-start"]}
    hooks = {"SessionStart": [{"hooks": [start]}], "SessionEnd": [{"hooks": [own, end]}]}
    file.write_text(json.dumps({"hooks": hooks}))
    assert SETTINGS in _init(sandbox)["kept"]
    _init(sandbox, "--no-hooks")
    assert json.loads(file.read_text()) == {"hooks": {"SessionEnd": [{"hooks": [own]}]}}


def test_settings_behind_a_link_stay_behind_it(sandbox: Sandbox) -> None:
    real = sandbox.base / "dotfiles.json"
    real.write_text("{}")
    file = sandbox.project / SETTINGS
    file.parent.mkdir()
    file.symlink_to(real)
    _init(sandbox)
    assert file.is_symlink()
    assert len(_commands(real)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"// mine\n{}",
        b"[]",
        b"\xff\xfe",
        b'{"hooks": []}',
        b'{"hooks": {"Stop": {}}}',
        b'{"hooks": {"SessionEnd": [{}]}}',
        b'{"hooks": {"SessionEnd": ["lc"]}}',
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b"[" * 100000,
    ],
    ids=lambda content: content[:35].decode(errors="replace") or "empty",
)
def test_settings_that_cannot_be_understood_are_left_alone(
    sandbox: Sandbox, content: bytes
) -> None:
    root = sandbox.base / "new"
    (root / ".claude").mkdir(parents=True)
    (root / SETTINGS).write_bytes(content)
    result = sandbox.lc("init", str(root), check=2)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert f"{root / SETTINGS} " in result.stderr
    assert _tree(root) == {SETTINGS: content}


def test_nothing_is_overwritten(sandbox: Sandbox) -> None:
    root = sandbox.base / "new"
    (root / "src").mkdir(parents=True)
    (root / "src" / "report.sh").write_text("mine\n")
    result = sandbox.lc("init", str(root), check=2)
    assert result.stderr.startswith(f"lc: {root}/src/report.sh would be in the way")
    assert _tree(root) == {"src/report.sh": b"mine\n"}


def test_directory_that_cannot_be_one(sandbox: Sandbox) -> None:
    (sandbox.base / "file").touch()
    for place in ("file", "file/below", "/proc/none"):
        result = sandbox.lc("init", place, cwd=sandbox.base, check=2)
        assert place.split("/")[-1] in result.stderr
    (sandbox.project / ".gitignore").mkdir()
    result = sandbox.lc("init", check=2)
    assert len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in sandbox.project.iterdir()) == [".gitignore", "astra.yaml"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "# Made by lc\nresults/\n"),
        ("", "# Made by lc\nresults/\n"),
        ("*.log", "*.log\n\n# Made by lc\nresults/\n"),
        ("*.log\n", "*.log\n\n# Made by lc\nresults/\n"),
        ("results\n", None),
        ("a\r\n/results/\r\n", None),
        ("**/results/*\n!results/keep\n", None),
        ("!results/\n", None),
        ("my-results/\n# results/\n", "my-results/\n# results/\n\n# Made by lc\nresults/\n"),
    ],
)
def test_results_are_ignored_unless_something_is_said_of_them(
    sandbox: Sandbox, before: str | None, after: str | None
) -> None:
    file = sandbox.project / ".gitignore"
    if before is not None:
        file.write_bytes(before.encode())
    _init(sandbox)
    assert file.read_bytes().decode() == (before if after is None else after)


def test_agents_are_told_where_they_look(sandbox: Sandbox) -> None:
    (sandbox.project / "AGENTS.md").write_text("# Ours\n\nBe kind.\n")
    told = _init(sandbox, "--agents")
    assert (told["created"], told["changed"]) == (
        [SETTINGS, ".gitignore", "CLAUDE.md"],
        ["AGENTS.md"],
    )
    text = (sandbox.project / "AGENTS.md").read_text()
    assert text.startswith("# Ours\n\nBe kind.\n\n<!-- lc init: agents -->\n## ")
    assert (sandbox.project / "CLAUDE.md").read_text() == "@AGENTS.md\n"
    # What they are told exists.
    for words in ("run -n", "run -u", "status --json", "log", "exec", "verify", "session stop"):
        assert f"`lc {words}" in text
        verb, *options = words.split()
        help_text = sandbox.lc(verb, "--help").stdout
        assert all(option in help_text for option in options)
    (sandbox.project / "CLAUDE.md").write_text("mine\n")
    assert _init(sandbox, "--agents")["kept"] == [
        SETTINGS, ".gitignore", "AGENTS.md", "CLAUDE.md",
    ]  # fmt: skip
    assert (sandbox.project / "CLAUDE.md").read_text() == "mine\n"


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_OTHERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)
_GROUPS = st.lists(
    st.fixed_dictionaries(
        {"hooks": st.lists(st.dictionaries(_TEXTS, _OTHERS, max_size=3), max_size=3)},
        optional={"matcher": _TEXTS},
    ),
    min_size=1,
    max_size=3,
)
_EVENTS = st.dictionaries(
    st.sampled_from(["SessionStart", "SessionEnd", "Stop"]) | _TEXTS,
    _GROUPS,
    min_size=1,
    max_size=3,
)
_SETTINGS = st.builds(
    lambda others, events: others if events is None else {**others, "hooks": events},
    st.dictionaries(_TEXTS.filter(lambda name: name != "hooks"), _OTHERS, max_size=4),
    st.none() | _EVENTS,
)


@given(_SETTINGS, st.sampled_from([None, 1, 2, "\t"]))
def test_hooks_come_and_go_without_a_trace(
    tmp_path: Path, own: dict[str, Any], indent: int | str | None
) -> None:
    file = tmp_path / SETTINGS
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(own, indent=indent), encoding="utf-8")
    added = with_hooks(tmp_path).after
    assert added is not None
    file.write_bytes(added)
    assert with_hooks(tmp_path).after == added
    removed = without_hooks(tmp_path).after
    assert json.dumps(own) == ("{}" if removed is None else json.dumps(json.loads(removed)))
