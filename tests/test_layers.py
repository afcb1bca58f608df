"""Imports point downwards only: the layers of docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightcone

_PACKAGE = Path(lightcone.__file__).parent
# From the top; those of a line do not know each other. hook.py is left out: it is an agent's way
# in, and what the others have of it is the name of a variable.
_LAYERS = (
    {"cli"},
    {"run", "view", "scaffold"},
    {"analysis", "session"},
    {"cluster"},
    {"context"},
    {"granted"},
    {"slurm", "host"},
    {"settings", "sites"},
    {"answer", "files", "garbage", "locks", "mounts", "signals", "units"},
    {"errors"},
)
_RANKS = {name: rank for rank, layer in enumerate(_LAYERS) for name in layer}


def _imported(path: Path) -> Iterator[str]:
    """What a module imports of the package: ``session.control``, for instance."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "lightcone":
                yield from (name.name for name in node.names)
            elif (node.module or "").startswith("lightcone."):
                yield (node.module or "").removeprefix("lightcone.")
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("lightcone."):
                    yield name.name.removeprefix("lightcone.")


@pytest.mark.parametrize("name", sorted(_RANKS))
def test_a_layer_knows_only_those_below(name: str) -> None:
    place = _PACKAGE / name
    paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    found = {
        f"{path.relative_to(_PACKAGE)}: {imported}"
        for path in paths
        for imported in _imported(path)
        if (layer := imported.partition(".")[0]) != name
        and layer in _RANKS
        and _RANKS[layer] <= _RANKS[name]
    }
    assert found == set()


def test_every_module_is_in_a_layer() -> None:
    there = {path.stem for path in _PACKAGE.iterdir() if (path / "__init__.py").exists()}
    there |= {path.stem for path in _PACKAGE.glob("*.py")}
    assert there - _RANKS.keys() == {"__init__", "__main__", "hook"}
