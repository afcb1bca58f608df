"""Specs and makefiles with instant recipes, the same work for every contender."""

from __future__ import annotations

from pathlib import Path

__all__ = ["flat", "levels", "makefile", "write_pairs"]

_HEAD = 'version: "0.0.14"\nname: bench\ninputs: []\n'
_WIDTHS = (6, 6, 4, 2)
_UNIVERSES = 10
_CHAIN = 10


def flat(count: int) -> str:
    """A spec of ``count`` outputs, each a file, that need nothing."""
    outputs = [
        f"  - id: o{number}\n    type: data\n    format: txt\n"
        f"    recipe: {{command: 'echo {number} > {{output}}'}}\n"
        for number in range(count)
    ]
    return f"{_HEAD}outputs:\n{''.join(outputs)}"


def levels(widths: tuple[int, ...] = _WIDTHS) -> str:
    """A spec that the older tool reads too: outputs are directories, on levels.

    Each takes two outputs of the level before; by default there are 18 on 4 levels.
    """
    outputs, before = [], 0
    for level, width in enumerate(widths):
        for number in range(width):
            inputs = [f"l{level - 1}_{(number + step) % before}" for step in (0, 1) if before]
            inputs = list(dict.fromkeys(inputs))
            read = " ".join(f"{{inputs.{name}}}/x" for name in inputs)
            command = f"cat {read} > {{output}}/x" if inputs else "echo x > {output}/x"
            outputs.append(
                f"  - id: l{level}_{number}\n    type: data\n    inputs: [{', '.join(inputs)}]\n"
                f"    recipe: {{command: '{command}'}}\n"
            )
        before = width
    return f"{_HEAD}outputs:\n{''.join(outputs)}"


def makefile(count: int) -> str:
    """A makefile that does what :func:`flat` does; ``make`` runs a shell for each."""
    rules = [f"o{number}.txt:\n\techo {number} > $@\n" for number in range(count)]
    return f"all: {' '.join(f'o{number}.txt' for number in range(count))}\n{''.join(rules)}"


def write_pairs(root: Path, pairs: int) -> None:
    """Write a project of ``pairs`` (output, universe) pairs: scripts, data, chains of ten."""
    universes = min(_UNIVERSES, pairs)
    for name in ("universes", "src", "data"):
        (root / name).mkdir()
    for number in range(universes):
        text = f"id: u{number}\ndecisions: {{cut: {'ab'[number % 2]}}}\n"
        (root / "universes" / f"u{number}.yaml").write_text(text)
    for number in range(50):
        script = "import json\nfrom common import x\n" + "x = 1\n" * 200
        (root / "src" / f"s{number}.py").write_text(script)
        (root / "data" / f"d{number}.csv").write_text(f"{number}\n")
    (root / "src" / "common.py").write_text("import os\nx = 1\n")
    lines = ['version: "0.0.14"', "name: bench", "inputs:"]
    lines += [f"  - {{id: d{number}, source: data/d{number}.csv}}" for number in range(50)]
    lines += ["decisions: {cut: {options: {a: {}, b: {}}, default: a}}", "outputs:"]
    for number in range(pairs // universes):
        source = f"o{number - 1}" if number % _CHAIN else f"d{number % 50}"
        command = (
            f"python src/s{number % 50}.py --in {{inputs.{source}}} "
            "--cut {decisions.cut} --out {output}"
        )
        lines += [
            f"  - id: o{number}\n    type: data\n    format: csv\n    inputs: [{source}]\n"
            f"    decisions: [cut]\n    recipe: {{command: '{command}'}}"
        ]
    (root / "astra.yaml").write_text("\n".join(lines) + "\n")
