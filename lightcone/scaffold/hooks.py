"""Claude Code's hooks: added to a project's settings, and removed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lightcone.errors import SettingsError
from lightcone.scaffold.changes import Change, read

__all__ = ["with_hooks", "without_hooks"]

_FILE = ".claude/settings.json"
_OURS = re.compile(r"(^|[\s/;&|'\"])lc['\"]?\s+hook\s+session-(start|end)\b")

Table = dict[str, Any]


def with_hooks(root: Path) -> Change:
    """Return the change that adds missing hooks to the settings.

    Raises:
        SettingsError: where the settings cannot be understood.
    """
    before = read(root / _FILE)
    settings, events = _parse(root, before)
    wanted = json.loads((Path(__file__).parent / "hooks.json").read_bytes())["hooks"]
    missing = {
        event: groups for event, groups in wanted.items() if not _has_ours(events.get(event, []))
    }
    if not missing:
        return Change(_FILE, before, before)
    for event, groups in missing.items():
        events.setdefault(event, []).extend(groups)
    settings["hooks"] = events
    return Change(_FILE, before, _render(root, before, settings))


def without_hooks(root: Path) -> Change:
    """Return the change that removes the hooks from the settings.

    The file is removed where nothing else is in it.

    Raises:
        SettingsError: where the settings cannot be understood.
    """
    before = read(root / _FILE)
    settings, events = _parse(root, before)
    with_ours = [event for event, groups in events.items() if _has_ours(groups)]
    if not with_ours:
        return Change(_FILE, before, before)
    for event in with_ours:
        events[event] = [
            remaining for group in events[event] if (remaining := _without_ours(group)) is not None
        ]
        if not events[event]:
            del events[event]
    if not events:
        del settings["hooks"]
    return Change(_FILE, before, _render(root, before, settings) if settings else None)


def _parse(root: Path, content: bytes | None) -> tuple[Table, Table]:
    """Return the settings, and their hooks by event."""
    path = root / _FILE
    if content is None:
        return {}, {}
    try:
        settings = json.loads(content, object_pairs_hook=_unique_pairs, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path} is not valid JSON ({error}): mend it, and use 'lc init' again."
        ) from error
    events = settings.get("hooks", {}) if isinstance(settings, dict) else None
    if not isinstance(events, dict) or not all(map(_is_list_of_groups, events.values())):
        raise SettingsError(
            f"{path} does not have the form of Claude Code's settings: mend its 'hooks', and use "
            "'lc init' again."
        )
    return settings, events


def _unique_pairs(pairs: list[tuple[str, Any]]) -> Table:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return table


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _is_list_of_groups(groups: Any) -> bool:
    return isinstance(groups, list) and all(
        isinstance(group, dict)
        and isinstance(group.get("hooks"), list)
        and all(isinstance(hook, dict) for hook in group["hooks"])
        for group in groups
    )


def _has_ours(groups: list[Table]) -> bool:
    return any(_is_ours(hook) for group in groups for hook in group["hooks"])


def _without_ours(group: Table) -> Table | None:
    """Remove our hooks from a group; None where it had no other."""
    remaining = [hook for hook in group["hooks"] if not _is_ours(hook)]
    if len(remaining) == len(group["hooks"]):
        return group
    return {**group, "hooks": remaining} if remaining else None


def _is_ours(hook: Table) -> bool:
    arguments = hook.get("args")
    words = [hook.get("command"), *(arguments if isinstance(arguments, list) else [])]
    return bool(_OURS.search(" ".join(map(str, words))))


def _render(root: Path, before: bytes | None, settings: Table) -> bytes:
    """Format the settings in the layout of the text before."""
    former_text = (before or b"").decode("utf-8-sig", errors="replace")
    match = re.search(r"\n([ \t]+)\S", former_text)
    end = "\n" if before is None or former_text.endswith("\n") else ""
    indent = match[1] if match else 2
    try:
        text = json.dumps(settings, indent=indent, ensure_ascii=False, allow_nan=False)
        return (text + end).encode()
    except (ValueError, RecursionError) as error:  # such as half of a pair of surrogates, or 1e999
        raise SettingsError(
            f"{root / _FILE} has a value that cannot be written again ({error}): mend it, and use "
            "'lc init' again."
        ) from error
