"""Partial work of failed and interrupted recipes, at most two copies for each output.

It is kept by renaming alone. When a recipe fails because the disk is full, there is no room for
anything else, and what it has written may be the checkpoint of a day's work. Work of the same
identity that has at least as many bytes replaces the work before it. Less is kept beside it. Of
three, the largest one of the last identity and the largest other one are kept. No recipe goes on
from work whose sources or inputs changed meanwhile: it is kept to be looked at, and goes first.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightcone.spec.output import Output
from lightcone.state.manifest import Provenance
from lightcone.system.files import read_file, read_object, remove, write_atomically, write_new
from lightcone.system.units import format_bytes

__all__ = [
    "FAILURE",
    "FAILURE_VERSION",
    "PARTIAL_NEXT",
    "PartialWork",
    "describe_partial",
    "describe_resume",
    "discard_partial",
    "find_partial",
    "has_partial",
    "keep_partial",
    "measure",
    "products_of",
    "read_failure",
    "restore_partial",
    "set_partial_aside",
    "without_products",
    "write_failure",
]

FAILURE = "failure.json"

FAILURE_VERSION = 1


def read_failure(state_dir: str | Path) -> dict[str, Any] | None:
    """Read the failure record in ``state_dir``; None if none is usable.

    A record of another version is not usable.
    """
    try:
        record = read_object(f"{state_dir}/{FAILURE}")
    except (OSError, ValueError):
        return None
    return record if record.get("version") == FAILURE_VERSION else None


def write_failure(
    output: Output,
    identity: str,
    reason: str,
    *,
    exit_code: int | None,
    interrupted: bool,
    products: Sequence[str],
) -> None:
    """Record that ``output`` could not be made, if the disk has room.

    Args:
        output: the output.
        identity: the identity of the output to be made.
        reason: why it was not, in words.
        exit_code: how its recipe ended; None where it did not come to that.
        interrupted: whether it was ended because no run wanted it any more.
        products: the files that its command names and its recipe wrote.
    """
    record = {
        "version": FAILURE_VERSION,
        "identity": identity,
        "template": output.template,
        "products": list(products),
        "exit_code": exit_code,
        "reason": reason,
        "interrupted": interrupted,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(OSError):
        content = json.dumps(record).encode()
        write_atomically(output.state_dir / FAILURE, content, mode=0o666, durable=False)


def products_of(record: Mapping[str, Any], output: Output) -> set[str]:
    """Return the files that the recipe wrote before it failed.

    Empty where the recipe has been declared otherwise since.
    """
    products = record.get("products")
    if record.get("template") != output.template or not isinstance(products, list):
        return set()
    return {name for name in products if isinstance(name, str)}


def without_products(
    provenance: Provenance, failure: Mapping[str, Any] | None, output: Output
) -> Provenance:
    """Return ``provenance`` without the files that the failed recipe wrote itself."""
    products = set() if failure is None else products_of(failure, output)
    if products.isdisjoint(provenance.files):
        return provenance
    files = {name: stamp for name, stamp in provenance.files.items() if name not in products}
    return replace(provenance, files=files)


PARTIAL_NEXT = "partial.new"

"""The name of partial work until the previous result is restored."""

# The places of the copies; each has the journal of its recipe beside it, as NAME.json.
_SLOTS = ("partial", "partial.2")


# The key of a note for what changed of the sources and inputs while the recipe ran.
_DISTURBED = "disturbed"


@dataclass(frozen=True)
class PartialWork:
    """A copy of partial work.

    Attributes:
        path: where it is, a file or a directory.
        size: its bytes.
        made_for: the identity and the file name of the output that it was to become; None where
            that is not recorded.
        disturbed: what changed of its sources and inputs while it was made, as a clause.
        obstacle: why the recipe cannot go on from it, as a clause; "" where it can.
    """

    path: Path
    size: int
    made_for: tuple[str, object] | None
    disturbed: str = ""
    obstacle: str = ""

    @staticmethod
    def read(path: Path, note: Path, output: Output, identity: str | None) -> PartialWork:
        """Read what ``note``, the journal of its recipe, says of the work at ``path``."""
        try:
            journal = read_object(note)
        except (OSError, ValueError):
            journal = {}
        made_for, name, template = (journal.get(key) for key in ("identity", "name", "template"))
        disturbed = str(journal.get(_DISTURBED) or "")
        size = measure(path)
        if not isinstance(made_for, str):
            obstacle = "what it was made for is not recorded"
            return PartialWork(path, size, None, disturbed, obstacle)
        if name != output.path.name:  # the same command may make a file of another name
            obstacle = f"it was to become {name}"
        elif disturbed:
            obstacle = disturbed
        elif made_for == identity:
            obstacle = ""
        elif isinstance(template, str) and template != output.template:
            obstacle = "the recipe's command has changed since"
        else:
            obstacle = "an input, a script, a decision or the command has changed since"
        return PartialWork(path, size, (made_for, name), disturbed, obstacle)

    def is_alike(self, other: PartialWork) -> bool:
        """Return whether both are known to be of one identity, and equally good to go on from."""
        is_one = self.made_for is not None and self.made_for == other.made_for
        return is_one and bool(self.disturbed) == bool(other.disturbed)


def has_partial(output: Output) -> bool:
    """Return whether there is partial work; called for every output of a plan."""
    return any(os.access(f"{output.state}/{name}", os.F_OK) for name in _SLOTS)


def find_partial(output: Output, identity: str | None = None) -> list[PartialWork]:
    """Return the copies of partial work.

    Those that a recipe of ``identity`` can go on from come first, then those with more bytes.
    """
    copies = [
        PartialWork.read(path, _note(path), output, identity)
        for path in (output.state_dir / name for name in _SLOTS)
        if os.path.lexists(path)
    ]
    return sorted(copies, key=lambda copy: (bool(copy.obstacle), -copy.size))


def describe_partial(copies: Sequence[PartialWork], resume: str) -> str:
    """Describe what :func:`find_partial` found, and what ``resume`` does with it.

    "" where there is nothing.
    """
    if not any(copy.size for copy in copies):
        return ""
    first, *others = copies
    text = f"{format_bytes(first.size)} of partial work"
    if others:
        text += f" (and another {format_bytes(others[0].size)})"
    if first.obstacle:
        return f"{text}, from which {resume} does not go on: {first.obstacle}"
    return f"{text}, from which {resume} goes on"


def describe_resume(*, by_rule: bool) -> str:
    """Return what goes on from partial work, for :func:`describe_partial`.

    ``by_rule`` says whether the settings have the recipe always go on.
    """
    return "the next 'lc run'" if by_rule else "'lc run --resume'"


def set_partial_aside(output: Output) -> str:
    """Move the partial work at the output's path aside.

    Where it cannot be moved it is removed, because the result before it comes first. Returns a
    remark about that, or "".

    Raises:
        OSError: where it can be neither moved nor removed.
    """
    path, next_partial = output.path, output.state_dir / PARTIAL_NEXT
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
        return ""
    try:
        remove(next_partial)
        os.rename(path, next_partial)
    except OSError as error:
        size = measure(path)
        remove(path)
        return f"{format_bytes(size)} of partial work could not be kept ({error.strerror})"
    return ""


def keep_partial(output: Output, journal: Path, disturbed: str = "") -> str:
    """Keep the partial work set aside, if any, for which ``journal`` was written.

    ``disturbed`` is what changed of its sources and inputs meanwhile, as a clause. Returns a remark
    about partial work that had to go, or is more than this; "" for none.
    """
    next_partial = output.state_dir / PARTIAL_NEXT
    if not os.path.lexists(next_partial):
        return ""
    new = replace(PartialWork.read(next_partial, journal, output, None), disturbed=disturbed)
    remark = ""
    kept = []
    for copy in find_partial(output):
        if copy.is_alike(new) and copy.size <= new.size:
            _remove_copy(copy)
        else:
            kept.append(copy)
    if len(kept) == len(_SLOTS):
        loser = _least([*kept, new])
        why = "no recipe can go on from it" if loser.disturbed else "there is more of it"
        remark = f"{format_bytes(loser.size)} of partial work was removed, as {why}"
        _remove_copy(loser)
        if loser is new:
            return remark
        kept.remove(loser)
    taken = {copy.path.name for copy in kept}
    path = output.state_dir / next(name for name in _SLOTS if name not in taken)
    remove(_note(path))
    # Where there is no room even for this, the work is there to be looked at.
    with contextlib.suppress(OSError, ValueError):
        _write_note(_note(path), journal, disturbed)
    os.rename(next_partial, path)
    more = [copy for copy in kept if copy.is_alike(new)]
    if more and new.size and not remark:
        sizes = format_bytes(new.size), format_bytes(more[0].size)
        remark = "{} of partial work is less than the {} before it; both are kept".format(*sizes)
    return remark


def restore_partial(output: Output, identity: str) -> PartialWork | None:
    """Put the partial work of ``identity`` in place; return it, or None without any."""
    for copy in find_partial(output, identity):
        if not copy.obstacle:
            os.rename(copy.path, output.path)
            remove(_note(copy.path))
            return copy
    return None


def discard_partial(output: Output) -> int:
    """Remove every copy of the partial work; return the bytes that they took."""
    size = 0
    for name in (*_SLOTS, PARTIAL_NEXT):
        path = output.state_dir / name
        with contextlib.suppress(FileNotFoundError):
            size += measure(path)
            remove(path)
    for name in _SLOTS:
        remove(_note(output.state_dir / name))
    return size


def measure(path: Path) -> int:
    """Return the bytes of a file or of the files in a tree.

    Raises:
        FileNotFoundError: where nothing is there.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size
    size = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(directory, name)).st_size
    return size


def _least(copies: list[PartialWork]) -> PartialWork:
    """Return the copy that is given up, the last one being new.

    That is one that no recipe goes on from, or else neither the largest one of the new one's
    identity nor the largest other one.
    """
    *kept, new = copies
    disturbed = [copy for copy in copies if copy.disturbed]
    if disturbed:
        return min(disturbed, key=lambda copy: copy.size)
    ranked = sorted([new, *kept], key=lambda copy: -copy.size)
    ranked.remove(next(copy for copy in ranked if copy is new or copy.is_alike(new)))
    return ranked[-1]


def _remove_copy(copy: PartialWork) -> None:
    remove(copy.path)
    remove(_note(copy.path))


def _write_note(note: Path, journal: Path, disturbed: str) -> None:
    """Make a note of ``journal``, by a link to it where nothing is to be added."""
    content = read_file(journal)
    if disturbed:
        content = json.dumps(read_object(journal) | {_DISTURBED: disturbed}).encode()
    else:
        with contextlib.suppress(OSError):
            os.link(journal, note)
            return
    write_new(note, content, stat.S_IMODE(os.stat(journal).st_mode), umask=0)


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
