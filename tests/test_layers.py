"""The tower of docs/architecture.md: imports run downwards only, and in no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import lightcone

_PACKAGE = Path(lightcone.__file__).parent
# From the top; the rooms of one floor do not know each other.
_TOWER = (
    ("cli",),
    ("run", "view"),
    ("session",),
    ("scheduler",),
    ("worker",),
    ("wire",),
    ("state",),
    ("spec", "engine", "scaffold"),
    ("project",),
    ("slurm",),
    ("system",),
    ("errors",),
)
_FLOORS = {room: floor for floor, rooms in enumerate(_TOWER) for room in rooms}
# The face of the package and its program; what they import is deferred or needs nothing.
_OUTSIDE = {"__init__", "__main__"}


def _modules() -> dict[str, Path]:
    """Every module by its name below the package: ``session.start``, for instance."""
    found = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        words = path.relative_to(_PACKAGE).with_suffix("").parts
        found[".".join(words[:-1] if words[-1] == "__init__" and words[:-1] else words)] = path
    return found


def _imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module is None or node.module.partition(".")[0] != "lightcone":
                continue
            package = node.module.partition(".")[2]
            for name in node.names:
                module = f"{package}.{name.name}".lstrip(".")
                if module in modules or package:
                    yield module if module in modules else package
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("lightcone."):
                    yield name.name.removeprefix("lightcone.")


def _draw(upward: list[str]) -> str:
    """The tower, and what is wrong with it."""
    width = max(len("   ".join(rooms)) for rooms in _TOWER)
    floors = [f"    | {'   '.join(rooms):^{width}} |" for rooms in _TOWER]
    return "\n".join(["imports run downwards:", *floors, "these do not:", *upward])


def test_imports_run_down_the_tower() -> None:
    modules = _modules()
    upward = [
        f"    {module} imports {imported}"
        for module, path in modules.items()
        if module not in _OUTSIDE
        for imported in _imported(path, modules)
        if (above := imported.partition(".")[0]) != (room := module.partition(".")[0])
        and _FLOORS[above] <= _FLOORS[room]
    ]
    assert not upward, _draw(upward)


def test_no_module_is_loose_and_every_room_says_what_it_is_for() -> None:
    modules = _modules()
    assert {module.partition(".")[0] for module in modules} == _FLOORS.keys() | _OUTSIDE
    loose = {path.stem for path in _PACKAGE.glob("*.py")}
    assert loose == _OUTSIDE | {"errors"}
    for path in _PACKAGE.glob("*/**/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{path} does not say what the room is for"
        assert len(tree.body) == 1, f"{path} exports something"


def test_no_circle() -> None:
    modules = _modules()
    graph = {
        module: set(_imported_at_once(path, modules)) - {module} for module, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"modules import each other: {' -> '.join(error.args[1])}") from error


def _imported_at_once(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The modules that a module imports as it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in top:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightcone."):
            package = (node.module or "").removeprefix("lightcone.")
            for name in node.names:
                module = f"{package}.{name.name}"
                yield module if module in modules else package
