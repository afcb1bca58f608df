"""The files of a new project, and additions to files shared with others."""

from __future__ import annotations

from pathlib import Path

from lightcone.errors import UsageError
from lightcone.project.context import SPEC_FILE
from lightcone.project.settings import SETTINGS_FILE
from lightcone.scaffold.changes import Change, read

__all__ = ["agents_changes", "gitignore_change", "observe_change", "scaffold"]

_HERE = Path(__file__).parent
_RESULTS = "results/"
_OBSERVE = b"[run]\nobserve = true\n"
_MARK = b"<!-- lc init: agents -->"


def scaffold(root: Path) -> list[Change]:
    """Return the changes that create a small project which runs.

    The spec is last, because a directory with a spec is a project.

    Raises:
        UsageError: where a file of that name is there with something else in it.
    """
    template = _HERE / "template"
    paths = [path for path in sorted(template.rglob("*")) if path.is_file()]
    paths.sort(key=lambda path: path.name == SPEC_FILE)
    changes = []
    for path in paths:
        name = str(path.relative_to(template))
        change = Change(name, read(root / name), path.read_bytes())
        if change.before not in (None, change.after):
            raise UsageError(
                f"{root / name} would be in the way of a new project's: name another directory, "
                f"or write an {SPEC_FILE} and use 'lc init' again."
            )
        changes.append(change)
    return changes


def gitignore_change(root: Path) -> Change:
    """Return the change that adds the results to ``.gitignore``, unless listed."""
    name = ".gitignore"
    before = read(root / name)
    lines = (before or b"").decode(errors="replace").splitlines()
    is_listed = any(
        line.strip().lstrip("!/").removeprefix("**/").split("/")[0] == _RESULTS.rstrip("/")
        for line in lines
    )
    added = f"# Made by lc\n{_RESULTS}\n".encode()
    return Change(name, before, before if is_listed else _append(before, added))


def observe_change(root: Path) -> Change:
    """Return the change that has recipes observed, in a project without settings."""
    before = read(root / SETTINGS_FILE)
    return Change(SETTINGS_FILE, before, _OBSERVE if before is None else before)


def agents_changes(root: Path) -> list[Change]:
    """Return the changes that give agents notes on lc, in ``AGENTS.md``.

    Claude Code reads ``CLAUDE.md``, which is created with a reference where it does not exist.
    """
    text = (_HERE / "agents.md").read_bytes()
    before = read(root / "AGENTS.md")
    is_present = before is not None and _MARK in before
    claude = read(root / "CLAUDE.md")
    return [
        Change("AGENTS.md", before, before if is_present else _append(before, text)),
        Change("CLAUDE.md", claude, b"@AGENTS.md\n" if claude is None else claude),
    ]


def _append(before: bytes | None, text: bytes) -> bytes:
    """Append the text to the content, with an empty line between."""
    if not before:
        return text
    return before + (b"\n" if before.endswith(b"\n") else b"\n\n") + text
