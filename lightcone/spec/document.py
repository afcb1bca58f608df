"""YAML reader that keeps every scalar as the text in the file.

Options are named ``on``, ``30``, ``0.10`` or ``1e-3`` in real specs, quoted in one file and not
in the other, and commands are to get what was written. So nothing becomes a number, a date or a
truth value here; only an empty or ``null`` value is None.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from lightcone.errors import SpecError
from lightcone.system.files import read_file

__all__ = ["describe_dangling", "read_document"]

_KEYED = frozenset({"analyses", "decisions", "options"})
_NESTED = _KEYED | {"outputs", "recipe"}
_UNIQUE_KEYS = _NESTED | frozenset(
    {
        "command",
        "container",
        "default",
        "format",
        "from",
        "id",
        "inputs",
        "path",
        "source",
        "universe",
        "when",
    }
)
_MAX_DEPTH = 200
_DEEP_BLOCK = re.compile(rb"^ {200}|(?:[-?:] +){100}", re.MULTILINE)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def read_document(path: Path, name: str) -> Any:
    """Read a YAML file, which messages call ``name``.

    Raises:
        SpecError: where it cannot be read or is not YAML.
    """
    import yaml

    try:
        content = read_file(path)
        if _may_be_deep(content) and _is_deep(content):
            raise RecursionError
        loader = _loader()(content)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_duplicate_keys(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise SpecError(f"{describe_dangling(path, name)}.") from error
        raise SpecError(
            f"{name} cannot be read ({error.strerror}): check that it is a readable file."
        ) from error
    except _DuplicateKey as error:
        key, line = error.args
        raise SpecError(
            f"{name} has '{key}' twice in one place, again on line {line}: merge the two."
        ) from error
    except yaml.YAMLError as error:
        raise SpecError(f"{name} is not valid YAML: {_describe_problem(error)}.") from error
    except RecursionError as error:
        raise SpecError(f"{name} is nested too deeply: check its brackets.") from error


def describe_dangling(link: Path, name: str) -> str:
    """Return what is wrong with a link that leads nowhere, and what to do."""
    return (
        f"{name} is a link to '{os.readlink(link)}', which does not exist: restore that, or remove "
        "the link"
    )


class _DuplicateKey(Exception):
    """A key given twice in one mapping, and the line of the second."""


def _refuse_duplicate_keys(node: Any, *, ids: bool = False) -> None:
    """Raise _DuplicateKey for a key given twice, of which YAML keeps one.

    Only where that changes the work: prose and insights may have what they like.
    """
    if node.id == "sequence":
        for item in node.value:
            _refuse_duplicate_keys(item)
        return
    if node.id != "mapping":
        return
    seen = set()
    for key, value in node.value:
        name = key.value if key.id == "scalar" else None
        if name in seen and (ids or name in _UNIQUE_KEYS):
            raise _DuplicateKey(name, key.start_mark.line + 1)
        seen.add(name)
        if ids or name in _NESTED:
            _refuse_duplicate_keys(value, ids=name in _KEYED and not ids)


def _may_be_deep(content: bytes) -> bool:
    """Return whether the slower check ``_is_deep`` is needed."""
    if _DEEP_BLOCK.search(content):
        return True
    depth = 0
    for bracket in content.translate(None, delete=_NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MAX_DEPTH:
            return True
    return False


def _is_deep(content: bytes) -> bool:
    """Return whether the document would overflow the C loader's stack.

    Such an overflow ends the process.
    """
    import yaml

    depth = 0
    for event in yaml.parse(content, Loader=_loader()):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            return True
    return False


def _describe_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    problem = str(problem).rstrip(".")
    if mark is None:
        return problem
    return f"{problem} on line {mark.line + 1}, column {mark.column + 1}"


@cache
def _loader() -> type[Any]:
    import yaml

    base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """Safe loader that resolves only nulls and merges."""

    kept_tags = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
    Loader.yaml_implicit_resolvers = {
        first: kept
        for first, resolvers in base.yaml_implicit_resolvers.items()
        if (kept := [(tag, pattern) for tag, pattern in resolvers if tag in kept_tags])
    }
    return Loader
