"""Literal values of expressions in a Python text: strings, and the paths made of them.

A path is literal if it is a string, or made of strings, ``__file__`` and names that hold such paths
by the functions of ``os.path`` and ``pathlib``. A name has every value that it is given anywhere in
the text, because what runs when is not known.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import product

from lightcone.state.references import HERE, join, parent

__all__ = ["UNKNOWN", "LiteralValues", "Values", "called", "combined"]

Values = tuple[str | None, ...]
"""The possible texts of an expression; None stands for those that are not known."""

UNKNOWN: Values = (None,)

_MAX_VALUES = 64
_MAX_DEPTH = 40
_EVALUATED = frozenset(
    {ast.Constant, ast.Name, ast.JoinedStr, ast.BinOp, ast.Attribute, ast.Subscript, ast.IfExp}
    | {ast.Call}
)
_SAME_PATH = frozenset(
    {"abspath", "realpath", "normpath", "expanduser", "fspath", "str", "resolve", "absolute"}
    | {"as_posix"}
)
_PATHS = frozenset({"Path", "PurePath", "PosixPath", "PurePosixPath"})


class LiteralValues:
    """The values of the expressions of one text, each evaluated once."""

    def __init__(self) -> None:
        self._names: dict[str, list[ast.expr | None]] = {}
        self._known: dict[str, Values] = {}
        self._evaluated: dict[int, Values] = {}

    def name(self, name: str, value: ast.expr | None) -> None:
        """Give a name one more value; None is one that is not known.

        All names are given their values before the first is looked for.
        """
        self._names.setdefault(name, []).append(value)

    def of(self, node: ast.expr, depth: int = 0) -> Values:
        """Return the possible texts of an expression; None stands for those not known."""
        if node.__class__ not in _EVALUATED or depth > _MAX_DEPTH:
            return UNKNOWN
        values = self._evaluated.get(id(node))
        if values is None:
            # For as long as they are looked for, the values of "a = a + b" are not known.
            self._evaluated[id(node)] = UNKNOWN
            values = self._evaluated[id(node)] = self._evaluate(node, depth + 1)
        return values

    def _named(self, name: str, depth: int) -> Values:
        """Return the values that a name is given anywhere in the script."""
        if name not in self._known:
            self._known[name] = UNKNOWN
            values: list[str | None] = []
            given = self._names.get(name, [None])
            for each in given if len(given) <= _MAX_VALUES else [None]:
                values += UNKNOWN if each is None else self.of(each, depth)
            self._known[name] = tuple(dict.fromkeys(values))[:_MAX_VALUES]
        return self._known[name]

    def _evaluate(self, node: ast.expr, depth: int) -> Values:
        match node:
            case ast.Constant(value=str(text)):
                return (text,)
            case ast.Name(id="__file__"):
                return (f"{HERE}/__file__",)
            case ast.Name():
                return self._named(node.id, depth)
            case ast.JoinedStr():
                joined: Values = ("",)
                for piece in node.values:
                    value = piece.value if isinstance(piece, ast.FormattedValue) else piece
                    joined = combined(str.__add__, joined, self.of(value, depth))
                return joined
            case ast.BinOp(op=ast.Div()) | ast.BinOp(op=ast.Add()):
                left = self.of(node.left, depth)
                if left == UNKNOWN:
                    return left
                combine = join if isinstance(node.op, ast.Div) else str.__add__
                return combined(combine, left, self.of(node.right, depth))
            case ast.Attribute(attr="parent"):
                return _each(parent, self.of(node.value, depth))
            case ast.Subscript(
                value=ast.Attribute(attr="parents", value=path), slice=ast.Constant(value=int(up))
            ):
                found = self.of(path, depth)
                for _ in range(min(up + 1, _MAX_DEPTH)):
                    found = _each(parent, found)
                return found
            case ast.IfExp():
                return self.of(node.body, depth) + self.of(node.orelse, depth)
            case ast.Call():
                return self._returned(node, depth)
        return UNKNOWN

    def _returned(self, node: ast.Call, depth: int) -> Values:
        """Return the possible results of a call that makes a path."""
        name, owner = called(node)
        values = [self.of(each, depth) for each in node.args[:8]]
        if name in _PATHS or (name == "join" and (owner is None or _is_path_module(owner))):
            result: Values = (".",) if not values else values[0]
            for each in values[1:]:
                result = combined(join, result, each)
            return result
        if name == "joinpath" and owner is not None:
            result = self.of(owner, depth)
            for each in values:
                result = combined(join, result, each)
            return result
        if name == "with_name" and owner is not None and values:
            return combined(join, _each(parent, self.of(owner, depth)), values[0])
        if name == "dirname" and values:
            return _each(parent, values[0])
        if name in ("getcwd", "cwd"):
            return (".",)
        if name in _SAME_PATH:
            if values:
                return values[0]
            return self.of(owner, depth) if owner is not None else UNKNOWN
        return UNKNOWN


def called(node: ast.Call) -> tuple[str, ast.expr | None]:
    """Return the last name of what is called, and what has it as an attribute."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr, node.func.value
    return (node.func.id, None) if isinstance(node.func, ast.Name) else ("", None)


def _is_path_module(node: ast.expr) -> bool:
    """Return whether an expression is ``path``, or ``path`` of something, as ``os.path``."""
    match node:
        case ast.Name(id="path" | "posixpath") | ast.Attribute(attr="path"):
            return True
    return False


def _each(function: Callable[[str], str], values: Values) -> Values:
    return tuple(None if each is None else function(each) for each in values)


def combined(combine: Callable[[str, str], str], left: Values, right: Values) -> Values:
    """Return every value of ``left`` combined with every one of ``right``."""
    if len(left) * len(right) > _MAX_VALUES:
        return UNKNOWN
    return tuple(
        dict.fromkeys(
            None if one is None or other is None else combine(one, other)
            for one, other in product(left, right)
        )
    )
