"""The files of a new project, and what every project needs of files that have other users too."""

from __future__ import annotations

from pathlib import Path

from lightcone.errors import UsageError
from lightcone.project.context import SPEC_FILE
from lightcone.scaffold.changes import Change, read

__all__ = ["agents", "ignored", "scaffold"]

_HERE = Path(__file__).parent
_RESULTS = "results/"
_MARK = b"<!-- lc init: agents -->"


def scaffold(root: Path) -> list[Change]:
    """A small project that runs as it is, its spec last: with that, it is one.

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


def ignored(root: Path) -> Change:
    """Results left out of what git keeps, unless its file says something about them already."""
    name = ".gitignore"
    before = read(root / name)
    lines = (before or b"").decode(errors="replace").splitlines()
    said = any(
        line.strip().lstrip("!/").removeprefix("**/").split("/")[0] == _RESULTS.rstrip("/")
        for line in lines
    )
    added = f"# Made by lc\n{_RESULTS}\n".encode()
    return Change(name, before, before if said else _append(before, added))


def agents(root: Path) -> list[Change]:
    """What agents should know, in the file that they read.

    Claude Code reads another one, which gets a reference to it where there is none.
    """
    text = (_HERE / "agents.md").read_bytes()
    before = read(root / "AGENTS.md")
    told = before is not None and _MARK in before
    claude = read(root / "CLAUDE.md")
    return [
        Change("AGENTS.md", before, before if told else _append(before, text)),
        Change("CLAUDE.md", claude, b"@AGENTS.md\n" if claude is None else claude),
    ]


def _append(before: bytes | None, text: bytes) -> bytes:
    """The text after what is there, with an empty line between."""
    if not before:
        return text
    return before + (b"\n" if before.endswith(b"\n") else b"\n\n") + text
