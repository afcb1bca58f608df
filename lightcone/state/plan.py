"""Assessment of outputs: which are good, and why others are not."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from lightcone.spec.inputs import match_again
from lightcone.spec.output import MANIFEST, Key, Output
from lightcone.state.changes import changes
from lightcone.state.dependencies import SourceFiles
from lightcone.state.fingerprint import difference
from lightcone.state.hash_cache import HashCache
from lightcone.state.identity import identify
from lightcone.state.manifest import Manifest, Provenance, Unusable, inspect_manifest
from lightcone.state.older import OlderRecord, find_older, older_as_manifest, outdated_reasons
from lightcone.state.partial import FAILURE, read_failure, without_products
from lightcone.state.pointers import Absence
from lightcone.system.interpreter import gc_paused

__all__ = [
    "FAILURE",
    "Assessment",
    "State",
    "assess",
    "good_dependents",
    "plan",
    "unmakeable",
]

_MAX_SHOWN = 3

# A command that fetches the data itself may name a pointer.
_FETCHES = re.compile(r"\b(?:lfs|annex|datalad|dvc)\b")


class State(StrEnum):
    """State of an output; ``NEWER`` is for a newer ``lc`` to judge.

    ``UNCONFIRMED`` is good by its record, of inputs that are not here: it is built on, and never
    remade.
    """

    OK = "ok"
    UNCONFIRMED = "unconfirmed"
    STALE = "stale"
    MISSING = "missing"
    RUNNING = "running"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class Assessment:
    """The state of one output, with the reasons for it.

    Attributes:
        output: the output.
        state: never ``RUNNING``, which claims know.
        why: what is wrong, in words; "" where nothing is.
        provenance: what it would be made from; None where an input is missing or to be made first.
        manifest: the record of the result that is there, good or not, if it can be read.
        lacks_input: whether it cannot be made of its inputs from outside, as in ``why``.
        reasons: everything that is wrong, of which ``why`` may show only a part.
    """

    output: Output
    state: State
    why: str
    provenance: Provenance | None
    manifest: Manifest | None
    lacks_input: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether outputs that need it are built on it as it is."""
        return self.state is State.OK or self.state is State.UNCONFIRMED


def plan(
    outputs: Sequence[Output], force: Set[Key] = frozenset(), hashes: Path | None = None
) -> dict[Key, Assessment]:
    """Assess every output of ``outputs``, which are in topological order.

    Those in ``force`` are not good, whatever there is, nor are any that need them, unless it then
    turns out that they came out the same. In ``hashes`` the hashes of files that match no manifest
    are kept from one plan to the next.

    Raises:
        SpecError: where a file that an output depends on cannot be read.
    """
    if not outputs:
        return {}
    with gc_paused():
        cache = HashCache(hashes, outputs[0].root)
        assessed = _plan(outputs, force, SourceFiles(outputs[0].root, cache))
        cache.save()
        return assessed


def assess(
    output: Output, versions: Mapping[str, str | None], hashes: Path | None = None
) -> Assessment:
    """Assess one output, given the data versions of its inputs.

    The output of the assessment has all that the patterns among its sources match by now.

    ``versions`` has each input that an output makes, with None where that is not good. For
    ``hashes`` see :func:`plan`.

    Raises:
        SpecError: where a file that the output depends on cannot be read.
    """
    sources = SourceFiles(output.root, HashCache(hashes))
    output = match_again(output)
    return _assess(output, versions, _read_record(output, sources), sources)


def good_dependents(
    outputs: Sequence[Output], keys: Set[Key], hashes: Path | None = None
) -> set[Key]:
    """Return the outputs that are good as long as those of ``keys`` stay as they are.

    That is, all that need one of these, directly or not, and are stale for no other reason. For
    ``outputs`` and ``hashes`` see :func:`plan`.

    Raises:
        SpecError: where a file that an output depends on cannot be read.
    """
    if not outputs:
        return set()
    cache = HashCache(hashes, outputs[0].root)
    with gc_paused():
        assessed = _plan(outputs, frozenset(), SourceFiles(outputs[0].root, cache), as_good=keys)
        cache.save()
    dependents: set[Key] = set()
    for key, assessment in assessed.items():
        producers = {(key[0], given.producer) for given in assessment.output.inputs}
        if assessment.state is State.OK and key not in keys and producers & (keys | dependents):
            dependents.add(key)
    return dependents


def unmakeable(assessed: Mapping[Key, Assessment]) -> dict[Key, Output]:
    """Return the outputs of a plan that cannot be made, with their causes.

    A cause is the output itself or one that it needs, which lacks an input from outside or which
    only a newer ``lc`` can judge.
    """
    causes: dict[Key, Output] = {}
    for key, assessment in assessed.items():
        if assessment.lacks_input or assessment.state is State.NEWER:
            causes[key] = assessment.output
        elif not assessment.is_good:
            for given in assessment.output.inputs:
                cause = causes.get((key[0], given.producer or ""))
                if cause is not None:
                    causes[key] = cause
    return causes


def _read_record(output: Output, sources: SourceFiles) -> Manifest | OlderRecord | Unusable | None:
    """Read the record of an output; ``sources`` learns its stamps."""
    record = inspect_manifest(output.state)
    if isinstance(record, Manifest):
        sources.learn(record.provenance)
    return find_older(output) if record is None else record


def _plan(
    outputs: Sequence[Output],
    force: Set[Key],
    sources: SourceFiles,
    as_good: Set[Key] = frozenset(),
) -> dict[Key, Assessment]:
    records = [_read_record(output, sources) for output in outputs]
    assessed: dict[Key, Assessment] = {}
    good_versions: dict[Key, str] = {}
    for output, record in zip(outputs, records, strict=True):
        versions = {
            given.id: good_versions.get((output.universe, given.producer))
            for given in output.inputs
            if given.producer is not None
        }
        key = output.key
        assessment = _assess(output, versions, record, sources)
        if key in force:
            if assessment.state is State.OK:
                assessment = replace(assessment, state=State.STALE, why="to be made again")
            elif assessment.state is State.UNCONFIRMED:
                assessment = replace(assessment, state=State.STALE, lacks_input=True)
        elif (assessment.is_good or key in as_good) and assessment.manifest is not None:
            good_versions[key] = assessment.manifest.data.version
        assessed[key] = assessment
    sources.scanner.save()
    return assessed


def _assess(
    output: Output,
    versions: Mapping[str, str | None],
    record: Manifest | OlderRecord | Unusable | None,
    sources: SourceFiles,
) -> Assessment:
    if isinstance(record, Unusable) and record.is_newer:
        manifest_path = os.path.relpath(output.state_dir / MANIFEST, output.root)
        return Assessment(
            output, State.NEWER, f"{manifest_path} {record.reason}: upgrade lc", None, None
        )
    manifest = record if isinstance(record, Manifest) else None
    waiting = [name for name, version in versions.items() if version is None]
    known = {name: version or "" for name, version in versions.items()}
    if waiting and manifest is not None:
        # As if they came out the same, to see what else there is to say.
        for name in waiting:
            source = manifest.provenance.inputs.get(name)
            known[name] = source.version if source is not None else ""
    provenance = identify(output, known, manifest, sources)
    reasons, is_missing = _reasons(output, record, provenance, versions, sources)
    failure = None
    if reasons and not (waiting and is_missing):
        failure = read_failure(output.state)
    foreign = without_products(provenance, failure, output)
    if foreign is not provenance:
        provenance = foreign
        reasons, is_missing = _reasons(output, record, provenance, versions, sources)
    if waiting and not is_missing:
        reasons += _to_be_remade(waiting)
    pointers = sources.pointer_files(provenance.files)
    if pointers and _FETCHES.search(output.command):
        pointers = {}
    if not reasons and not pointers:
        if isinstance(record, OlderRecord):
            manifest = older_as_manifest(output, record, provenance)
        return Assessment(output, State.OK, "", provenance, manifest)
    state = State.MISSING if is_missing else State.STALE
    # Of what is to be made first, a recipe may well put them there.
    if not waiting:
        absent = [
            (given.id, absence)
            for given in output.inputs
            if given.producer is None
            for absence in sources.absences(given, output)
        ]
        absent += [("", absence) for absence in pointers.values()]
        if absent and manifest is not None:
            assumed = _as_recorded(output, provenance, manifest.provenance, sources, pointers)
            if not _reasons(output, record, assumed, versions, sources)[0]:
                why = _describe_absent(absent, is_good=True)
                return Assessment(output, State.UNCONFIRMED, why, None, manifest)
        why = _describe_absent(absent) if absent else output.misfit
        if why:
            return Assessment(output, state, why, None, manifest, lacks_input=True)
    why = "; ".join(reasons[:_MAX_SHOWN])
    if len(reasons) > _MAX_SHOWN:
        why += f"; and {len(reasons) - _MAX_SHOWN} more"
    if waiting:
        return Assessment(output, state, why, None, manifest, reasons=tuple(reasons))
    if failure is not None and failure.get("identity") == provenance.identity:
        state, why = _describe_failure(failure)
        return Assessment(output, state, why, provenance, manifest)
    return Assessment(output, state, why, provenance, manifest, reasons=tuple(reasons))


def _reasons(
    output: Output,
    record: Manifest | OlderRecord | Unusable | None,
    provenance: Provenance,
    produced: Mapping[str, str | None],
    sources: SourceFiles,
) -> tuple[list[str], bool]:
    """Describe why the data at an output's path is not its good result.

    Also returns whether the result is missing.
    """
    if record is None:
        if not os.path.exists(output.place):
            return ["never made"], True
        return [f"{output.display_path} is there, but not known to be finished"], True
    if isinstance(record, Unusable):
        return [f"its manifest {record.reason}"], not os.path.exists(output.place)
    if isinstance(record, OlderRecord):
        return outdated_reasons(output, record, produced, sources.tree_versions), False
    if (record.universe, record.output) != output.key:
        return [_describe_owner(record, output)], False
    reasons = [each.reason for each in changes(output, record, provenance, produced)]
    if not record.identity:
        reasons.insert(0, "its manifest was changed by hand, as 'lc verify' found")
    differs = difference(output.place, record.data, sources.hashes)
    if differs:
        reasons.insert(0, f"{output.display_path} {differs}")
    return reasons, differs == "is missing"


def _describe_owner(record: Manifest, output: Output) -> str:
    """Describe whose the manifest of another output is.

    A sub-analysis with a directory of its own has its results there, from where ``lc`` makes them
    with other commands, as these run in another directory.
    """
    text = f"its manifest is that of {record.universe}/{record.output}"
    places = {
        f".{output.id}": (record.output, "the project around this one"),
        f".{record.output}": (output.id, "a run in the directory of that sub-analysis"),
    }
    for suffix, (name, maker) in places.items():
        if name.endswith(suffix):
            return f"{text}, made by {maker}: use lc in one of the two places only"
    return text


def _as_recorded(
    output: Output,
    now: Provenance,
    recorded: Provenance,
    sources: SourceFiles,
    pointers: Mapping[str, Absence],
) -> Provenance:
    """Return ``now`` with the record of each input and file that is not here and may be as it."""
    inputs, files = dict(now.inputs), dict(now.files)
    for given in output.inputs:
        source = recorded.inputs.get(given.id)
        if given.producer is not None or source is None:
            continue
        if sources.absences(given, output) and sources.may_be(given, output, source):
            inputs[given.id] = source
    for name, pointer in pointers.items():
        stamp = recorded.files.get(name)
        if stamp is None or stamp.sha256 == files[name].sha256:
            continue
        if pointer.sha256 in (None, stamp.sha256):
            files[name] = stamp
    return replace(now, inputs=inputs, files=files)


def _describe_absent(absent: list[tuple[str, Absence]], *, is_good: bool = False) -> str:
    """Describe the data that is not here, by input, with what to do.

    Where the output is good, there is nothing to do about data that simply is not there.
    """
    by_remedy: dict[str, list[str]] = {}
    for name, absence in absent:
        label = f"input {name}: " if name else ""
        by_remedy.setdefault(absence.remedy, []).append(label + absence.problem)
    clauses = []
    for remedy, problems in list(by_remedy.items())[:_MAX_SHOWN]:
        listing = "; ".join(problems[:_MAX_SHOWN])
        if len(problems) > _MAX_SHOWN:
            listing += f"; and {len(problems) - _MAX_SHOWN} more"
        if not remedy and not is_good:
            it = "it" if len(problems) == 1 else "them"
            remedy = f"put {it} there, or correct astra.yaml"
        clauses.append(f"{listing}: {remedy}" if remedy else listing)
    if len(by_remedy) > _MAX_SHOWN:
        clauses.append(f"and {len(by_remedy) - _MAX_SHOWN} more")
    return "; ".join(clauses)


def _to_be_remade(names: list[str]) -> list[str]:
    if len(names) == 1:
        return [f"input {names[0]} is to be remade"]
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return [f"inputs {', '.join(names[:_MAX_SHOWN])}{more} are to be remade"]


def _describe_failure(record: dict[str, Any]) -> tuple[State, str]:
    reason, code = record.get("reason"), record.get("exit_code")
    if record.get("interrupted") is True:
        return State.INTERRUPTED, reason if isinstance(reason, str) and reason else "interrupted"
    if isinstance(code, int) and not isinstance(code, bool) and code != 0:
        if code > 0:
            return State.FAILED, f"recipe failed with exit code {code}"
        try:
            return State.FAILED, f"recipe was ended by {signal.Signals(-code).name}"
        except ValueError:
            return State.FAILED, f"recipe was ended by signal {-code}"
    return State.FAILED, f"recipe failed: {reason}" if reason else "recipe failed"
