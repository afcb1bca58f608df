"""The trace that ``strace`` writes of a recipe, read line by line."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

from lightcone.state.observed import Trace, status_time, with_parents

__all__ = ["TraceReader"]

_LINE = re.compile(rb" *(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(rb"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
# Names in quotes or in <> may contain anything, also what ends a call.
_CALL = re.compile(
    rb'(\w+)\(((?:[^"<)]++|"(?:[^"\\]++|\\.)*+"|<(?:[^<>\\]++|\\.)*+>|\)(?! += ))*+)\)'
    rb" += (-?\d+|\?)(?:<((?:[^<>\\]|\\.)*)>)?(.*)",
    re.DOTALL,
)
_PATH = re.compile(
    rb'(?:(AT_FDCWD|\d+)(?:<((?:[^<>\\]|\\.)*)>)?(?:\(deleted\))?, )?"((?:[^"\\]|\\.)*)"'
)
_DESCRIPTOR = re.compile(rb"\d+<((?:[^<>\\]|\\.)*)>")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-f]{2}|.)", re.DOTALL)
_ESCAPED = {
    b"n": b"\n",
    b"t": b"\t",
    b"r": b"\r",
    b"v": b"\v",
    b"f": b"\f",
    b"a": b"\a",
    b"b": b"\b",
}
_MOST_LINKS = 40
_FORKS = (b"clone", b"clone3", b"fork", b"vfork")
_LISTS = (b"getdents", b"getdents64")
_OPENS = (b"open", b"openat", b"openat2")
_EXECUTES = (b"execve", b"execveat")
_LOOKS = (
    b"access",
    b"chdir",
    b"faccessat",
    b"fstatat",
    b"lstat",
    b"newfstatat",
    b"readlink",
    b"stat",
)
_WRITES = (b"creat", b"truncate")
_NAMES = (b"link", b"mkdir", b"mknod", b"rename", b"rmdir", b"symlink", b"unlink")
_TIMES = (b"futimesat", b"utime")
_TOUCHES = (b"chmod", b"chown", b"fchmodat", b"fchownat", b"lchown", b"setxattr", *_TIMES)


def _unescape(text: bytes) -> str:
    if b"\\" in text:
        text = _ESCAPE.sub(_unescape_one, text)
    return os.fsdecode(text)


def _unescape_one(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1].isdigit():
        return bytes([int(code, 8) & 0xFF])
    if code[:1] == b"x" and len(code) == 3:
        return bytes([int(code[1:], 16)])
    return _ESCAPED.get(code, code)


class TraceReader:
    """Reader of the lines of one trace.

    Paths are followed from the working directory of each process, which it has from its parent and
    changes itself; where ``strace`` prints it, that counts.

    Args:
        root: the directory in which the first process starts, a real path; only paths in it are
            kept, by their names from there, the directory itself as ".".

    Attributes:
        trace: what was seen so far.
        has_ended: whether the first process has ended.
    """

    def __init__(self, root: str) -> None:
        self.trace = Trace()
        self.has_ended = False
        self._root = root
        self._prefix = root.rstrip("/") + "/"
        self._first: bytes | None = None
        # One list for all threads that share a working directory.
        self._directories: dict[bytes, list[str]] = {}
        self._unfinished: dict[bytes, bytes] = {}
        self._early: dict[bytes, list[bytes]] = {}
        self._real: dict[str, str] = {}
        self._named: dict[str, str] = {}
        # What names stand for that the processes have made: links, and other names of files.
        self._links: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        self._moved: set[str] = set()

    @property
    def has_begun(self) -> bool:
        """Whether any process was seen."""
        return self._first is not None

    def feed(self, line: bytes) -> None:
        """Take the next line, without its end."""
        match = _LINE.fullmatch(line)
        if match is None:
            return
        pid, text = match.groups()
        if self._first is None:
            self._first = pid
            self._directories[pid] = [self._root]
        if pid not in self._directories:
            # Its parent's call that returns its number is reported later.
            self._early.setdefault(pid, []).append(text)
        else:
            self._take(pid, text)

    def finish(self) -> None:
        """Take the lines of processes whose parents were not seen starting them."""
        for pid in list(self._early):
            self._adopt(pid, [self._root])

    def _adopt(self, pid: bytes, directory: list[str]) -> None:
        self._directories[pid] = directory
        for text in self._early.pop(pid, ()):
            self._take(pid, text)

    def _take(self, pid: bytes, text: bytes) -> None:
        if text.endswith(b"<unfinished ...>"):
            self._unfinished[pid] = text.removesuffix(b"<unfinished ...>").rstrip(b" ")
            return
        if text.startswith(b"+++"):
            if not text.startswith(b"+++ superseded"):
                self.has_ended = self.has_ended or pid == self._first
                # Its number may be another process's next.
                self._directories.pop(pid, None)
                self._unfinished.pop(pid, None)
            return
        resumed = _RESUMED.fullmatch(text)
        if resumed is not None:
            text = self._unfinished.pop(pid, resumed[1] + b"(") + resumed[2]
        call = _CALL.fullmatch(text)
        if call is not None and call[3] != b"?":
            self._call(pid, call[1], call[2], int(call[3]), call[4], call[5])

    def _call(
        self,
        pid: bytes,
        name: bytes,
        arguments: bytes,
        result: int,
        opened: bytes | None,
        error: bytes,
    ) -> None:
        if name in _FORKS:
            if result > 0:
                own = self._directories[pid]
                shared = b"CLONE_FS" in arguments or b"CLONE_THREAD" in arguments
                self._adopt(b"%d" % result, own if shared else list(own))
            return
        is_missing = error.startswith((b" ENOENT", b" ENOTDIR"))
        if result < 0 and not is_missing:
            return
        if name in _LISTS or name == b"fchdir":
            descriptor = _DESCRIPTOR.match(arguments)
            if descriptor is None or result < 0:
                return
            path = _unescape(descriptor[1])
            if name == b"fchdir":
                self._directories[pid][0] = path
            else:
                self._list(self._named.get(path, path))
            return
        matches = list(_PATH.finditer(arguments))
        if not matches or (is_missing and not matches[0][3]):
            return
        paths = [self._join(pid, match) for match in matches]
        if name in _OPENS:
            self._open(paths[0], arguments, None if opened is None else _unescape(opened))
        elif name.startswith((*_WRITES, *_NAMES, *_TOUCHES)):
            if is_missing:
                return
            if name.startswith(_WRITES):
                self._write(paths[0])
            elif name.startswith(_TOUCHES):
                self._touch(self._keep(set(), paths[0]), sets_time=name.startswith(_TIMES))
            else:
                self._change_names(name, paths, _unescape(matches[0][3]))
        elif is_missing:
            if name.startswith(_LOOKS):
                self._miss(paths[0])
            elif name in _EXECUTES and not os.path.exists(paths[0]):
                # Of a script that is there, its interpreter is missing.
                self._miss(paths[0])
        elif name in _EXECUTES:
            self._keep(self.trace.read, paths[0])
            self._keep(self.trace.programs, paths[0])
        elif name == b"chdir":
            self._directories[pid][0] = self._follow(paths[0])

    def _open(self, path: str, arguments: bytes, opened: str | None) -> None:
        flags = arguments[arguments.rfind(b'"') :]
        writes = b"O_WRONLY" in flags or b"O_RDWR" in flags
        if opened is None:
            # Opened to be made, it is no look-up: its directory is missing.
            if not writes:
                self._miss(path)
            return
        if writes:
            self._write(path)
            if self._is_inside(opened):
                self._write(opened)
        if b"O_PATH" in flags or b"O_WRONLY" in flags or b"O_TRUNC" in flags:
            return
        if not self._is_inside(path):
            path = opened
        elif opened != path:
            self._named[opened] = path
        else:
            self._named.pop(opened, None)
        if b"O_DIRECTORY" not in flags:
            self._keep(self.trace.read, path)

    def _join(self, pid: bytes, match: re.Match[bytes]) -> str:
        base, shown, text = match.groups()
        path = _unescape(text)
        if path.startswith("/"):
            return path
        if shown is not None:
            directory = _unescape(shown)
            if base == b"AT_FDCWD":
                self._directories[pid][0] = directory
        else:
            directory = self._directories[pid][0]
        return f"{directory}/{path}" if path else directory

    def _is_inside(self, path: str) -> bool:
        return path == self._root or path.startswith(self._prefix)

    def _name(self, path: str) -> str | None:
        """Return the name from the root, or None of a path that is not in it."""
        if ".." in path or not self._is_inside(path):
            path = self._follow(path)
        path = os.path.normpath(path)
        if path == self._root:
            return "."
        return path[len(self._prefix) :] if path.startswith(self._prefix) else None

    def _keep(self, names: set[str], path: str) -> set[str]:
        """Add a path's name, and the one that it stands for, to ``names``; return both."""
        name = self._name(path)
        both = set() if name is None else {name, self._resolve(name)}
        names |= both
        return both

    def _resolve(self, name: str, *, last: bool = True) -> str:
        """Return what ``name`` stands for, by the links and names that the processes have made.

        Without ``last``, the last part of it is not resolved.
        """
        for _ in range(_MOST_LINKS):
            for each in with_parents(name):
                if each == name and not last:
                    continue
                if each in self._origins:
                    return self._origins[each] + name[len(each) :]
                if each in self._links:
                    name = self._links[each] + name[len(each) :]
                    break
            else:
                break
        return name

    def _miss(self, path: str) -> None:
        for name in self._keep(set(), path):
            # What they removed or moved away, they do not find.
            if not any(each in self.trace.written for each in with_parents(name)):
                self.trace.missing.add(name)

    def _list(self, path: str) -> None:
        for name in self._keep(self.trace.listed, path):
            if name not in self.trace.entries:
                with contextlib.suppress(OSError), os.scandir(self._prefix + name) as entries:
                    self.trace.entries[name] = {
                        each.name: each.stat(follow_symlinks=False).st_ctime_ns for each in entries
                    }

    def _write(self, path: str) -> None:
        self._moved -= self._keep(self.trace.written, path)

    def _touch(self, names: Iterable[str], *, sets_time: bool = False) -> None:
        for name in names:
            known = self.trace.touched.get(name, 0)
            self.trace.touched[name] = (
                status_time(self._prefix + name) or 0 if sets_time or known else 0
            )

    def _change_names(self, call: bytes, paths: list[str], target: str) -> None:
        """Take a call that makes, removes or changes names, but no bytes."""
        names = [self._name(path) for path in paths]
        first, last = (
            None if name is None else self._resolve(name, last=False)
            for name in (names[0], names[-1])
        )
        written = self.trace.written
        if call.startswith(b"symlink"):
            to = self._name(os.path.join(os.path.dirname(paths[-1]), target))
            self._set_name(last, self._links, to)
        elif call.startswith(b"link"):
            origin = None if first is None else self._resolve(first)
            self._set_name(last, self._origins, None if origin in written else origin)
            if origin is not None:
                self._touch([origin])
        elif call.startswith(b"rename") and len(paths) > 1:
            link = self._links.pop(first or "", None)
            origin = self._origins.pop(first or "", None)
            if first is not None and first not in written:
                origin = origin or first
                self._moved.add(first)
                written.add(first)
            if link is not None:
                self._set_name(last, self._links, link)
            elif last is not None and origin == last and last in self._moved:
                # It has its own name again.
                self._moved.discard(last)
                written.discard(last)
                self._origins.pop(last, None)
                self._touch([last])
            else:
                self._set_name(last, self._origins, origin)
        else:
            self._set_name(last, self._links, None)

    def _set_name(self, name: str | None, meanings: dict[str, str], value: str | None) -> None:
        if name is None:
            return
        self.trace.written.add(name)
        self._moved.discard(name)
        self._links.pop(name, None)
        self._origins.pop(name, None)
        if value not in (None, name):
            meanings[name] = value

    def _follow(self, path: str) -> str:
        """Resolve the links in the directory of ``path``, each directory once."""
        above, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            above, name = path, ""
        if above not in self._real:
            self._real[above] = os.path.realpath(above or "/")
        return os.path.join(self._real[above], name)
