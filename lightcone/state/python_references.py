"""References of a Python text, read from its syntax tree.

Found are imports wherever they stand, modules that are imported or run by a literal name, literal
paths (``python_values.py``), and directories added to ``sys.path``. What a function writes to
(``to_csv``, ``open(…, "w")``) does not count. A text that is not Python of this version is searched
for lines that look like imports.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from collections.abc import Iterator

from lightcone.state.python_values import UNKNOWN, LiteralValues, called, combined
from lightcone.state.references import (
    WHOLE_SCRIPT,
    Kind,
    NotFollowed,
    Reference,
    References,
    is_like_a_path,
    join,
    merged,
)
from lightcone.state.shell_references import read_shell

__all__ = ["imported_modules", "read_python"]

# Parsing takes 20 ms for a thousand lines, and tables written as code have a hundred thousand.
_MAX_PARSED = 1 << 20

_IMPORT = re.compile(r"import\b[ \t]*(\([^)]*\)|[^\n#;'\"]*)")
_BEFORE = re.compile(r"(?:^|[;:'\"])[ \t]*(?:from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]*)?$")
# How far before an ``import`` its statement may begin: a line may be as long as the file.
_LOOKBACK = 500

_MODE = re.compile(r"[rwaxbtU+]{1,4}(?::\w*)?")
_OPENERS = frozenset({"open", "File", "ZipFile", "TarFile", "GzipFile", "Dataset"})
_READERS = re.compile(r"open|open_\w+|read_[a-z]\w*|loadtxt|genfromtxt|imread")
_WRITERS = re.compile(
    r"(?:to|save|write|dump)(?:_\w+|txt|fig|z|to)?|mkdir|touch|unlink|\w*FileHandler"
)
_COPIERS = frozenset({"copy", "copy2", "copyfile", "copytree", "move", "rename", "replace"})
_LISTERS = {"glob": "", "iglob": "", "rglob": "**", "listdir": "*", "scandir": "*", "iterdir": "*"}
# Stands in a command for what is computed.
_COMPUTED = "$computed"
_IMPORTERS = frozenset({"import_module", "__import__", "run_module"})
_PATH_RUNNERS = frozenset({"run_path", "spec_from_file_location"})
_RESOURCES = frozenset(
    {"files", "open_text", "open_binary", "read_text", "read_binary", "path", "get_data"}
)
_RENAMED = _IMPORTERS | _PATH_RUNNERS | _RESOURCES
_COMMANDS = frozenset(
    {"system", "popen", "getoutput", "run", "Popen", "call", "check_call", "check_output"}
)


def read_python(text: str) -> References:
    """Return what a Python text refers to."""
    tree = None
    why = "it is not valid in the Python of lc"
    if len(text) > _MAX_PARSED:
        why = "it is longer than 1 MiB"
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    if tree is None:
        modules = [Reference(Kind.MODULE, name, line) for name, line in imported_modules(text)]
        reason = f"{why}, so only its imports were read"
        return References(tuple(modules), not_followed=(NotFollowed(WHOLE_SCRIPT, reason),))
    return _Reader(tree).references()


def imported_modules(text: str) -> Iterator[tuple[str, int]]:
    """Yield the modules that lines of a text import by their looks, with the line's number."""
    text = text.replace("\\\n", "  ")
    for match in _IMPORT.finditer(text):
        start = max(0, match.start() - _LOOKBACK)
        before = _BEFORE.search(text[start : match.start()].rpartition("\n")[2])
        if before is not None:
            dots, module = before.groups("")
            for target in re.sub(r"#[^\n]*", "", match[1]).strip("()").split(","):
                words = target.split()
                parts = [*module.split("."), *(words[0].split(".") if words else ())]
                name = ".".join(part for part in parts if part.isidentifier())
                if name or dots:
                    yield dots + name, 0


class _Reader:
    """Reader of one syntax tree."""

    def __init__(self, tree: ast.Module) -> None:
        self._found: list[Reference] = []
        self._assigned: list[tuple[str, int]] = []
        self._search: list[str] = []
        self._directories: list[str] = []
        self._not_followed: list[NotFollowed] = []
        self._commands: list[References] = []
        self._assignments: list[tuple[ast.expr, ast.expr]] = []
        self._values = LiteralValues()
        self._skipped: set[int] = set()
        self._tree = tree
        # What importing functions are called here: from importlib import import_module as im.
        self._renamed: dict[str, str] = {}

    def references(self) -> References:
        """Return everything that the tree refers to."""
        nodes: list[ast.AST] = [self._tree]
        statements: list[ast.AST] = []
        while nodes:
            node = nodes.pop()
            statements.append(node)
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                below = getattr(node, name, None)
                if isinstance(below, list):
                    nodes += below
        for node in statements:
            self._declare(node)
        for target, value in self._assignments:
            self._assign(target, value)
        self._visit(self._tree)
        paths = [Reference(Kind.PATH, text, line) for text, line in self._assigned]
        found = sorted([*self._found, *paths], key=lambda each: each.line)
        own = References(
            tuple(dict.fromkeys(found)),
            tuple(dict.fromkeys(self._search)),
            tuple(dict.fromkeys(self._directories)),
            tuple(dict.fromkeys(sorted(self._not_followed, key=lambda each: each.line))),
        )
        return merged([own, *self._commands]) if self._commands else own

    def _declare(self, node: ast.AST) -> None:
        """Note the imports and the names of one statement."""
        known = len(self._assignments)
        match node:
            case ast.Import():
                for each in node.names:
                    self._found.append(Reference(Kind.MODULE, each.name, node.lineno))
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                for each in node.names:
                    dot = "." if node.module and each.name != "*" else ""
                    name = module + dot + ("" if each.name == "*" else each.name)
                    if each.asname is not None and each.name in _RENAMED:
                        self._renamed[each.asname] = each.name
                    self._found.append(Reference(Kind.MODULE, name, node.lineno))
            case ast.Assign():
                self._assignments += [(target, node.value) for target in node.targets]
            case ast.AnnAssign() if node.value is not None:
                self._assignments.append((node.target, node.value))
            case ast.For() if isinstance(node.target, ast.Name):
                elements = getattr(node.iter, "elts", [None])
                for element in elements:
                    self._values.name(node.target.id, element)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                given = node.args
                for taken in (*given.posonlyargs, *given.args, *given.kwonlyargs):
                    self._values.name(taken.arg, None)
            case ast.Expr(value=ast.Constant()):
                self._skipped.add(id(node))
        for target, value in self._assignments[known:]:
            if isinstance(target, ast.Name):
                self._values.name(target.id, value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        """Note the literal path that a name is given, which may be one to write to."""
        if isinstance(target, ast.Name):
            values = self._values.of(value)
            if None not in values:
                self._skipped.add(id(value))
            for text in values:
                if text is not None and is_like_a_path(text):
                    self._assigned.append((text, value.lineno))
        elif _is_search_path(target):
            self._add_search(value)

    def _visit(self, top: ast.AST) -> None:
        """Note the literal paths and the calls below ``top``."""
        waiting: list[ast.AST] = [top]
        while waiting:
            node = waiting.pop()
            if id(node) in self._skipped:
                continue
            kind = node.__class__
            if kind is ast.Constant:
                self._note(node, (node.value,))  # type: ignore[attr-defined]
                continue
            if kind is ast.Call and self._call(node):  # type: ignore[arg-type]
                continue
            if kind in (ast.Call, ast.BinOp, ast.JoinedStr, ast.Attribute):
                values = self._values.of(node)  # type: ignore[arg-type]
                if None not in values:
                    self._note(node, values)
                    continue
            elif kind is ast.AugAssign and _is_search_path(node.target):  # type: ignore[attr-defined]
                self._add_search(node.value)  # type: ignore[attr-defined]
            for value in node.__dict__.values():
                if value.__class__ is list:
                    waiting += [each for each in value if isinstance(each, ast.AST)]
                elif isinstance(value, ast.AST):
                    waiting.append(value)

    def _note(
        self,
        node: ast.AST,
        values: tuple[object, ...],
        kind: Kind = Kind.PATH,
        *,
        is_path: bool = False,
    ) -> None:
        """Note the texts that are paths, by their looks unless they are so beyond doubt."""
        line = node.lineno  # type: ignore[attr-defined]
        for text in values:
            is_sure = is_path or kind is Kind.PATTERN
            if isinstance(text, str) and text and (is_sure or is_like_a_path(text)):
                self._found.append(Reference(kind, text, line))

    def _call(self, node: ast.Call) -> bool:
        """Note what a call brings in; return whether there is nothing more to see in it."""
        name, owner = called(node)
        name = self._renamed.get(name, name) if owner is None else name
        first = node.args[0] if node.args else None
        if name in _RESOURCES and first is not None and self._is_resource(node, name, owner):
            return True
        if name in _LISTERS:
            return self._list(node, name, owner, first)
        if name in ("append", "extend", "insert") and owner is not None:
            if _is_search_path(owner) and node.args:
                self._add_search(node.args[-1])
                return True
            return False
        if name == "addsitedir" and first is not None:
            self._add_search(first)
            return True
        if name == "chdir" and first is not None:
            self._directories += self._followed(node, first, "the directory")
            return True
        if name in _IMPORTERS and first is not None:
            for module in self._followed(node, first, "the module's name"):
                kind = Kind.RUN if name == "run_module" else Kind.MODULE
                self._found.append(Reference(kind, module, node.lineno))
                if kind is Kind.RUN:
                    self._found.append(Reference(kind, f"{module}.__main__", node.lineno))
            return True
        if name in _PATH_RUNNERS and node.args:
            values = self._followed(node, node.args[-1], "the path")
            self._note(node, tuple(values), is_path=True)
            return True
        if name in ("exec", "eval") and isinstance(node.func, ast.Name) and first is not None:
            if not any(called(each)[0] for each in ast.walk(first) if isinstance(each, ast.Call)):
                self._followed(node, None, "the code")
            return False
        if name in _COMMANDS and first is not None:
            return self._run(node, first)
        return self._read_or_write(node, name, owner, first)

    def _is_resource(self, node: ast.Call, name: str, owner: ast.expr | None) -> bool:
        """Note the files of a package that ``importlib.resources`` or ``pkgutil`` opens."""
        if owner is not None and not _text(owner).endswith(("resources", "pkgutil", "res")):
            return owner is None
        for package in self._followed(node, node.args[0], "the package"):
            self._found.append(Reference(Kind.MODULE, package, node.lineno))
            if name == "files":
                what = NotFollowed(
                    _text(node)[:60], "files of a package count if named", node.lineno
                )
                self._not_followed.append(what)
            elif len(node.args) > 1:
                directory = package.replace(".", "/")
                for text in self._followed(node, node.args[1], "the path"):
                    for base in ("", "src"):
                        path = join(base, f"{directory}/{text}")
                        self._found.append(Reference(Kind.PATH, path, node.lineno))
        return True

    def _read_or_write(
        self, node: ast.Call, name: str, owner: ast.expr | None, first: ast.expr | None
    ) -> bool:
        opens_owner = name == "open" and owner is not None and None not in self._values.of(owner)
        path = owner if opens_owner else first
        if name in _OPENERS or name.endswith("open"):
            second = node.args[1] if len(node.args) > 1 else None
            mode = first if opens_owner else second
            for keyword in node.keywords:
                mode = keyword.value if keyword.arg == "mode" else mode
            if isinstance(mode, ast.Constant) and _is_writing(mode.value):
                return self._write(path)
        elif name in _COPIERS and len(node.args) > 1:
            self._write(node.args[1])
            return False
        elif _WRITERS.fullmatch(name):
            if owner is not None and None not in self._values.of(owner):
                return self._write(owner)
            for each in node.args:
                self._write(each)
            return False
        if _READERS.fullmatch(name) and path is not None:
            self._note(node, tuple(self._followed(node, path, "the path")), is_path=True)
        return False

    def _write(self, path: ast.expr | None) -> bool:
        values = UNKNOWN if path is None else self._values.of(path)
        if path is None:
            return False
        self._found += (
            Reference(Kind.WRITTEN, each, path.lineno) for each in values if each is not None
        )
        if None not in values:
            self._skipped.add(id(path))
        return False

    def _list(
        self, node: ast.Call, name: str, owner: ast.expr | None, first: ast.expr | None
    ) -> bool:
        """Note the pattern of a call that lists files."""
        directories = UNKNOWN if owner is None else self._values.of(owner)
        is_path = None not in directories
        if not is_path and _text(owner) not in ("", "glob", "os"):
            return False
        if _LISTERS[name] == "*":
            base = directories if is_path else (".",) if first is None else self._values.of(first)
            values = combined(join, base, ("*",))
        elif first is None:
            return False
        else:
            values = self._values.of(first)
            if is_path:
                values = combined(join, directories, combined(join, (_LISTERS[name],), values))
        if None in values:
            self._followed(node, None, "the directory")
        self._note(node, values, Kind.PATTERN)
        return True

    def _run(self, node: ast.Call, first: ast.expr) -> bool:
        """Note what a command refers to that is run from Python."""
        words = first.elts if isinstance(first, ast.List | ast.Tuple) else [first]
        if isinstance(first, ast.List | ast.Tuple):
            texts = [next(iter(self._values.of(each))) for each in words]
            shown = [_COMPUTED if text is None else shlex.quote(text) for text in texts]
            self._add_command(" ".join(shown), node)
            return False
        for text in self._values.of(first):
            if text is not None and " " in text:
                self._add_command(text, node)
        if None in self._values.of(first) and _runs_commands(node):
            self._followed(node, None, "the command")
        return False

    def _add_command(self, text: str, node: ast.Call) -> None:
        read = read_shell(text)
        found = tuple(each._replace(line=node.lineno) for each in read.found)
        if read.not_followed and _runs_commands(node):
            self._followed(node, None, "the command")
        self._commands.append(read._replace(found=found, not_followed=()))

    def _add_search(self, value: ast.expr) -> None:
        while isinstance(value, ast.BinOp):
            # sys.path = [...] + sys.path
            value = value.left if isinstance(value.left, ast.List) else value.right
        for each in getattr(value, "elts", [value]):
            if not _is_search_path(each):
                self._search += self._followed(value, each, "the directory")

    def _followed(self, node: ast.expr, value: ast.expr | None, what: str) -> list[str]:
        """Return the values of an expression, and note it where it has others."""
        values = UNKNOWN if value is None else self._values.of(value)
        if None in values:
            text = _text(node)
            text = text if len(text) <= 60 else f"{text[:57]}..."
            self._not_followed.append(NotFollowed(text, f"{what} is computed", node.lineno))
        return [each for each in values if each is not None]


def _runs_commands(node: ast.Call) -> bool:
    """Return whether a call runs a command beyond doubt, and is no method of that name."""
    name, owner = called(node)
    if owner is None:
        return name in ("Popen", "check_call", "check_output", "getoutput", "system", "popen")
    return isinstance(owner, ast.Name) and owner.id in ("subprocess", "os", "sp")


def _is_writing(mode: object) -> bool:
    return isinstance(mode, str) and bool(_MODE.fullmatch(mode) and set("wax") & set(mode))


def _is_search_path(node: ast.expr) -> bool:
    """Return whether an expression is ``sys.path``, a slice of it or an item in it."""
    while isinstance(node, ast.Subscript | ast.Starred):
        node = node.value
    match node:
        case ast.Attribute(attr="path", value=ast.Name(id="sys")):
            return True
    return False


def _text(node: ast.AST | None) -> str:
    if node is None:
        return ""
    try:
        return ast.unparse(node)
    except RecursionError:
        return "..."
