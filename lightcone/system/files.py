"""Private directories, whole reads and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from lightcone.errors import SessionError

__all__ = [
    "FULL_DISK",
    "check_directory",
    "check_own",
    "flush_to_disk",
    "flush_tree",
    "is_full",
    "make_directory",
    "private_directory",
    "read_file",
    "read_object",
    "remove",
    "write_atomically",
    "write_new",
]

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The error numbers of a write to a full disk or over a quota."""

_CHUNK = 1 << 16
# Less is of no use, and some file systems never say that there is nothing.
_NO_ROOM = 1 << 16
_OTHERS = 0o077
# Some file systems write through, and refuse to be asked for it.
_UNSYNCABLE = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS, errno.EBADF, errno.ENOSYS})


def private_directory(path: Path, remedy: str) -> Path:
    """Make ``path`` a directory that only this user can enter (0700).

    Directories above it that are missing are made so too.

    Raises:
        SessionError: where it is a link, another user's, open to others or cannot be made; the
            sentence ends with ``remedy``.
    """
    if _is_private(path):
        return path
    try:
        make_directory(path, 0o700)
    except OSError as error:
        raise SessionError(
            f"The directory {path} cannot be made ({error.strerror}): {remedy}."
        ) from error
    check_own(path, remedy)
    if stat.S_IMODE(os.lstat(path).st_mode) & _OTHERS:
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
        if stat.S_IMODE(os.lstat(path).st_mode) & _OTHERS:
            raise SessionError(
                f"The directory {path} cannot be closed to other users, as its file system keeps "
                f"no modes: {remedy}."
            )
    return path


def _is_private(path: Path) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_mode == stat.S_IFDIR | 0o700 and status.st_uid == os.getuid()


def check_own(path: Path, remedy: str) -> None:
    """Raise unless ``path`` is this user's own directory or cannot be reached.

    Raises:
        SessionError: where it is a link, another user's or shared by all; the sentence ends with
            ``remedy``.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISDIR(status.st_mode):
        raise SessionError(f"{path} is not a directory of its own but a link or a file: {remedy}.")
    if status.st_uid != os.getuid():
        raise SessionError(f"The directory {path} belongs to another user: {remedy}.")
    if status.st_mode & stat.S_ISVTX:
        raise SessionError(f"The directory {path} is one that all users share: {remedy}.")


def make_directory(path: Path, mode: int = 0o777) -> bool:
    """Create a directory and its missing parents; False where ``path`` exists.

    Raises:
        OSError: where it cannot be made.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return False
    except FileNotFoundError:
        make_directory(path.parent, mode)
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            return False
    return True


def check_directory(path: Path, remedy: str) -> None:
    """Create ``path`` if missing; raise where other users may write to it.

    Raises:
        SessionError: as :func:`private_directory`, and where others may write there.
    """
    if path.is_symlink() or not path.is_dir():
        private_directory(path, remedy)
    status = path.stat()
    if status.st_uid != os.getuid():
        raise SessionError(f"The directory {path} belongs to another user: {remedy}.")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise SessionError(f"Other users may write to the directory {path}: {remedy}.")


def read_file(path: str | Path) -> bytes:
    """Return the bytes of a regular file; refuse anything else unread.

    Raises:
        OSError: where there is none, or it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            text = os.strerror(kind) if stat.S_ISDIR(mode) else "Not a file"
            raise OSError(kind, text, str(path))
        pieces = []
        while piece := os.read(descriptor, _CHUNK):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def read_object(path: str | Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: where there is none, or it cannot be read.
        ValueError: where it contains something else.
    """
    try:
        value = json.loads(read_file(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def write_atomically(
    path: Path, data: bytes, mode: int = 0o600, durable: bool = True, umask: int | None = None
) -> None:
    """Replace a file so that readers see old or new content whole.

    With ``durable`` this holds after a power loss too: once this has returned, readers see the new
    content. ``mode`` is subject to ``umask``, by default this process's own.

    Raises:
        OSError: where it cannot be written, with the name of ``path``.
    """
    # A name that nobody can have put a link or a file of his own at.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.new")
    try:
        write_new(temporary, data, mode, durable=durable, umask=umask)
        try:
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    if durable:
        flush_to_disk(path.parent)


def write_new(
    path: Path, data: bytes, mode: int, *, durable: bool = False, umask: int | None = None
) -> None:
    """Create a file that does not exist; remove it where writing fails.

    For ``mode`` and ``umask`` see :func:`write_atomically`. With ``durable`` its content, but not
    its name, has been flushed.

    Raises:
        OSError: where there is something, or the file cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        try:
            if umask is not None:
                os.fchmod(descriptor, mode & ~umask)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)  # where some file systems say that there was no room
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write that fails does not say where
        raise


def flush_to_disk(path: str | Path) -> None:
    """Flush a file's content, or a directory's entries, to the disk.

    Renames and creations in a flushed directory survive a power loss.

    Raises:
        OSError: where the disk refuses, for instance because it is full.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return  # what cannot even be read was not written by this user
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise
    finally:
        os.close(descriptor)


def flush_tree(path: Path) -> None:
    """Flush a whole tree, and its own directory entry, to the disk.

    Raises:
        OSError: where the disk refuses, for instance because it is full.
    """
    real = os.fspath(path)
    mode = os.lstat(real).st_mode
    if stat.S_ISLNK(mode):
        real = os.path.realpath(real)
        mode = os.lstat(real).st_mode
    if stat.S_ISDIR(mode):
        for directory, _, names in os.walk(real):
            for name in names:
                full = os.path.join(directory, name)
                if stat.S_ISREG(os.lstat(full).st_mode):
                    flush_to_disk(full)
            flush_to_disk(directory)
    elif stat.S_ISREG(mode):
        flush_to_disk(real)
    flush_to_disk(os.path.dirname(real))


def is_full(directory: Path) -> bool:
    """Whether the disk of ``directory`` is full, as far as it reports."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _NO_ROOM


def remove(path: Path) -> None:
    """Remove a file, link or whole tree, if it exists."""
    import shutil

    try:
        os.unlink(path)  # most often there is nothing, or a file
    except FileNotFoundError:
        return
    except OSError:
        if os.path.islink(path) or not os.path.isdir(path):
            raise
        shutil.rmtree(path)
