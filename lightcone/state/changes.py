"""Differences between what an output was made from and what is there now, in words.

A plan says them of what is stale, and a verification finds those that concern a source.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from enum import Enum
from typing import NamedTuple

from lightcone.spec.output import Output
from lightcone.state.imports import is_script
from lightcone.state.manifest import Manifest, Observed, Provenance, Source

__all__ = ["Change", "Kind", "changes", "describe_disturbed", "observed_changes"]

_MEANWHILE = "changed while it was made"
_MAX_SHOWN = 3


class Kind(Enum):
    """What differs: what the spec says, a source or an input, or the result of an output.

    A source that is ``GONE`` was there; any other difference of one is ``SOURCE``.
    """

    SPEC = "spec"
    SOURCE = "source"
    GONE = "gone"
    PRODUCED = "produced"


class Change(NamedTuple):
    """One difference.

    Attributes:
        reason: the difference, in words.
        kind: what differs.
        files: the files in question, as the project's directory shows them.
    """

    reason: str
    kind: Kind = Kind.SPEC
    files: tuple[str, ...] = ()


def changes(
    output: Output, recorded: Manifest, now: Provenance, produced: Collection[str]
) -> list[Change]:
    """Describe each change since ``recorded``; empty if the identity is unchanged.

    ``produced`` are the inputs that outputs make.
    """
    before = recorded.provenance
    if before is now and not recorded.disturbed:
        return []
    found = [
        *_declared_changes(before, now),
        *_file_changes(output, recorded, now),
    ]
    if before.command == now.command:
        described = before.files.keys() | now.files.keys()
        meanwhile = [
            name for name in recorded.disturbed if name not in described | before.inputs.keys()
        ]
        found += [_changed_meanwhile(name, None, is_named=False) for name in meanwhile]
        described |= set(meanwhile)
        found += observed_changes(before.observed, now.observed, described)
    found += _input_changes(output, recorded, now, produced)
    if before.command != now.command and not found:
        found += [
            Change(f"input {name}: {before.inputs[name].text} → {current.text}")
            for name, current in now.inputs.items()
            if before.inputs[name].text != current.text
        ] or [Change("command changed")]
    return found


def observed_changes(
    before: Observed, now: Observed, described: Collection[str] = ()
) -> Iterator[Change]:
    """Describe each difference between what was observed and what is there now.

    Files in ``described`` are left out, because they count whether or not they were observed.
    """
    if before is now:
        return
    named = set(described)
    is_there = now.files.keys() | now.listings.keys()
    for name, stamp in before.files.items():
        if name in described:
            continue
        current = now.files.get(name)
        if current is None:
            named.add(name)
            if name in now.listings:
                yield _of_file(name, "is now a directory")
            else:
                yield _of_file(name, "is gone", Kind.GONE)
        elif current.sha256 != stamp.sha256:
            yield _of_file(name, "changed" if stamp.sha256 else _MEANWHILE)
    for name in before.missing:
        if name in is_there and name not in described:
            named.add(name)
            yield _of_file(name, "is there now, which the recipe looked for")
    for name, names in before.listings.items():
        current_names = now.listings.get(name)
        if current_names is None:
            yield _of_file(name, "is gone", Kind.GONE)
            continue
        above = "" if name == "." else f"{name}/"
        for each in sorted(set(current_names) ^ set(names)):
            if above + each not in named:
                change = "new in" if each in current_names else "gone from"
                yield _of_file(above + each, f"is {change} a directory that the recipe lists")


def describe_disturbed(manifest: Manifest) -> str:
    """Describe, as :func:`changes` does, what changed while the recipe of ``manifest`` ran."""
    provenance = manifest.provenance
    reasons = [
        _changed_meanwhile(name, provenance.inputs.get(name), name in provenance.files).reason
        for name in manifest.disturbed
    ]
    if len(reasons) > _MAX_SHOWN:
        reasons[_MAX_SHOWN:] = [f"and {len(reasons) - _MAX_SHOWN} more"]
    return "; ".join(reasons)


def _declared_changes(before: Provenance, now: Provenance) -> Iterator[Change]:
    if before.command != now.command and before.template != now.template:
        yield Change("recipe changed")
    if before.container != now.container:
        yield Change(f"container: {before.container or 'none'} → {now.container or 'none'}")
    if before.decisions != now.decisions:
        for name in dict.fromkeys([*before.decisions, *now.decisions]):
            old, new = before.decisions.get(name), now.decisions.get(name)
            if old != new:
                yield Change(f"decision {name}: {old or 'none'} → {new or 'none'}")


def _file_changes(output: Output, recorded: Manifest, now: Provenance) -> Iterator[Change]:
    before = recorded.provenance.files
    for name in dict.fromkeys([*before, *now.files]):
        then, stamp = before.get(name), now.files.get(name)
        if stamp is None:
            if os.path.exists(output.root / name):
                yield _of_file(name, "is no longer used")
            else:
                yield _of_file(name, "is gone", Kind.GONE)
        elif then is None:
            yield _of_file(name, "is new")
        elif name in recorded.disturbed:
            yield _changed_meanwhile(name, None)
        elif then.sha256 != stamp.sha256:
            yield _of_file(name, "changed")


def _input_changes(
    output: Output, recorded: Manifest, now: Provenance, produced: Collection[str]
) -> Iterator[Change]:
    before = recorded.provenance.inputs
    patterns = {given.id for given in output.inputs if given.pattern is not None}
    for name in dict.fromkeys([*before, *now.inputs]):
        source, current = before.get(name), now.inputs.get(name)
        if current is None:
            yield Change(f"input {name} was removed", Kind.SOURCE)
        elif source is None:
            yield Change(f"input {name} was added", Kind.SOURCE)
        elif name in recorded.disturbed:
            yield _changed_meanwhile(name, current)
        elif source.version == current.version:
            continue
        elif name in produced:
            yield Change(f"input {name} was remade", Kind.PRODUCED)
        elif source.text != current.text:
            reason = f"input {name}: {source.text} → {current.text}"
            yield Change(reason, Kind.SOURCE, (current.text,))
        else:
            yield _input_changed(name, source, current, is_pattern=name in patterns)


def _input_changed(name: str, before: Source, now: Source, *, is_pattern: bool) -> Change:
    """Describe a change of an input, with the first of the files that changed."""
    if before.files and now.version.startswith(("text:", "unset:")):
        return Change(f"input {name} is gone ({now.text})", Kind.GONE, (now.text,))
    changed = sorted(
        file
        for file in {*now.files, *before.files}
        if getattr(before.files.get(file), "sha256", None)
        != getattr(now.files.get(file), "sha256", None)
    )
    if not changed or "" in changed:
        return Change(f"input {name} changed ({now.text})", Kind.SOURCE, (now.text,))
    file = changed[0]
    what = "changed" if file in before.files and file in now.files else "is new"
    if file not in now.files:
        what = "is gone"
    more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    paths = changed if is_pattern else [f"{now.text.rstrip('/')}/{each}" for each in changed]
    kind = Kind.SOURCE if now.files else Kind.GONE
    return Change(f"input {name} changed ({now.text}: {file} {what}{more})", kind, tuple(paths))


def _changed_meanwhile(name: str, source: Source | None, is_named: bool = True) -> Change:
    if source is not None:
        reason = f"input {name} {_MEANWHILE} ({source.text})"
        return Change(reason, Kind.SOURCE, (source.text,))
    if is_script(name) or not is_named:
        return _of_file(name, _MEANWHILE)
    return _of_file(name, f"{_MEANWHILE}; remove it if the recipe writes it")


def _of_file(name: str, what: str, kind: Kind = Kind.SOURCE) -> Change:
    return Change(f"{name} {what}", kind, (name,))
