"""Specs of projects, from their outputs' commands."""

from __future__ import annotations

import json

__all__ = ["recipe", "spec"]


def recipe(name: str, command: str, inputs: tuple[str, ...] = (), **resources: object) -> str:
    """An output of a spec."""
    lines = [f"  - id: {name}", "    type: data", "    format: txt"]
    lines += [f"    inputs: {json.dumps(inputs)}", "    recipe:"]
    lines.append(f"      command: {json.dumps(command)}")
    if resources:
        lines.append(f"      resources: {json.dumps(resources)}")
    return "\n".join(lines)


def spec(*outputs: str) -> str:
    """A spec with these outputs."""
    head = 'version: "0.0.14"\nname: project\ninputs: []\noutputs:\n'
    return head + "\n".join(outputs) + "\n"
