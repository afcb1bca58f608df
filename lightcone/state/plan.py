"""Which outputs are good, and why the others are not."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from lightcone.spec.output import MANIFEST, Input, Key, Output
from lightcone.state.dependencies import SourceFiles
from lightcone.state.fingerprint import difference
from lightcone.state.hash_cache import HashCache
from lightcone.state.identity import changes, identify
from lightcone.state.manifest import Manifest, Provenance, Unusable, inspect_manifest
from lightcone.state.older import Older, find_older, older_as_manifest, outdated_reasons
from lightcone.state.partial import FAILURE, products_of, read_failure
from lightcone.system.interpreter import gc_paused

__all__ = ["FAILURE", "Assessment", "State", "assess", "plan", "unmakeable"]

_SHOWN = 3


class State(StrEnum):
    """What an output is, at a glance; ``NEWER`` is what only a newer ``lc`` can judge."""

    OK = "ok"
    STALE = "stale"
    MISSING = "missing"
    RUNNING = "running"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is known of one output.

    Attributes:
        output: the output.
        state: never ``RUNNING``, which claims know.
        why: what is wrong, in words; "" where nothing is.
        provenance: what it would be made from; None where an input is missing or to be made first.
        manifest: the record of the result that is there, good or not, if it can be read.
        lacks: whether it cannot be made, as an input from outside is not there; ``why`` says so.
    """

    output: Output
    state: State
    why: str
    provenance: Provenance | None
    manifest: Manifest | None
    lacks: bool = False


def plan(
    outputs: Sequence[Output], force: Set[Key] = frozenset(), hashes: Path | None = None
) -> dict[Key, Assessment]:
    """Assess every output of ``outputs``, which are in dependency order.

    Those in ``force`` are not good, whatever there is, nor are any that need them, unless it then
    turns out that they came out the same. In ``hashes`` the hashes of large files are kept from
    one plan to the next.

    Raises:
        SpecError: where a file that an output depends on cannot be read.
    """
    with gc_paused():
        return _plan(outputs, force, HashCache(hashes))


def assess(
    output: Output, versions: Mapping[str, str | None], hashes: Path | None = None
) -> Assessment:
    """Assess one output, given the data version of each input that an output makes.

    A version is None where that input is not good. For ``hashes`` see :func:`plan`.

    Raises:
        SpecError: where a file that the output depends on cannot be read.
    """
    sources = SourceFiles(output.root, HashCache(hashes))
    return _assess(output, versions, _look_up(output, sources), sources)


def unmakeable(assessed: Mapping[Key, Assessment]) -> dict[Key, Output]:
    """Those outputs of a plan that cannot be made.

    Each with the output to which that is due, itself or one that it needs: it lacks an input from
    outside, or only a newer ``lc`` can judge it.
    """
    found: dict[Key, Output] = {}
    for key, assessment in assessed.items():
        if assessment.lacks or assessment.state is State.NEWER:
            found[key] = assessment.output
        elif assessment.state is not State.OK:
            for given in assessment.output.inputs:
                by = found.get((key[0], given.producer or ""))
                if by is not None:
                    found[key] = by
    return found


def _look_up(output: Output, sources: SourceFiles) -> Manifest | Older | Unusable | None:
    """What is recorded of an output, and taken as known of its sources."""
    found = inspect_manifest(output.state)
    if isinstance(found, Manifest):
        sources.learn(found.provenance)
    return find_older(output) if found is None else found


def _plan(outputs: Sequence[Output], force: Set[Key], hashes: HashCache) -> dict[Key, Assessment]:
    if not outputs:
        return {}
    sources = SourceFiles(outputs[0].root, hashes)
    recorded = [_look_up(output, sources) for output in outputs]
    assessed: dict[Key, Assessment] = {}
    good: dict[Key, str] = {}
    for output, found in zip(outputs, recorded, strict=True):
        versions = {
            given.id: good.get((output.universe, given.producer))
            for given in output.inputs
            if given.producer is not None
        }
        key = output.key
        assessment = _assess(output, versions, found, sources)
        if key in force:
            if assessment.state is State.OK:
                assessment = Assessment(
                    output,
                    State.STALE,
                    "to be made again",
                    assessment.provenance,
                    assessment.manifest,
                )
        elif assessment.state is State.OK and assessment.manifest is not None:
            good[key] = assessment.manifest.data.version
        assessed[key] = assessment
    return assessed


def _assess(
    output: Output,
    versions: Mapping[str, str | None],
    found: Manifest | Older | Unusable | None,
    sources: SourceFiles,
) -> Assessment:
    if isinstance(found, Unusable) and found.is_newer:
        record = os.path.relpath(output.state_dir / MANIFEST, output.root)
        return Assessment(output, State.NEWER, f"{record} {found.reason}: upgrade lc", None, None)
    manifest = found if isinstance(found, Manifest) else None
    waiting = [name for name, version in versions.items() if version is None]
    known = {name: version or "" for name, version in versions.items()}
    if waiting and manifest is not None:
        # As if they came out the same, to see what else there is to say.
        for name in waiting:
            source = manifest.provenance.inputs.get(name)
            known[name] = source.version if source is not None else ""
    provenance = identify(output, known, manifest, sources)
    reasons, gone = _reasons(output, found, provenance, versions, sources)
    failure = None
    if reasons and not (waiting and gone):
        failure = read_failure(output.state)
    if failure is not None:
        products = products_of(failure, output) & provenance.files.keys()
        if products:
            files = {
                name: stamp for name, stamp in provenance.files.items() if name not in products
            }
            provenance = replace(provenance, files=files)
            reasons, gone = _reasons(output, found, provenance, versions, sources)
    if waiting and not gone:
        reasons += _to_be_remade(waiting)
    if not reasons:
        if isinstance(found, Older):
            manifest = older_as_manifest(output, found, provenance)
        return Assessment(output, State.OK, "", provenance, manifest)
    state = State.MISSING if gone else State.STALE
    # Of what is to be made first, a recipe may well put them there.
    lacked = [] if waiting else [each for each in output.inputs if sources.lacks(each, output)]
    if lacked:
        return Assessment(output, state, _not_there(lacked), None, manifest, lacks=True)
    why = "; ".join(reasons[:_SHOWN])
    if len(reasons) > _SHOWN:
        why += f"; and {len(reasons) - _SHOWN} more"
    if waiting:
        return Assessment(output, state, why, None, manifest)
    if failure is not None and failure.get("identity") == provenance.identity:
        state, why = _describe_failure(failure)
    return Assessment(output, state, why, provenance, manifest)


def _reasons(
    output: Output,
    found: Manifest | Older | Unusable | None,
    provenance: Provenance,
    produced: Mapping[str, str | None],
    sources: SourceFiles,
) -> tuple[list[str], bool]:
    """Why what lies at the output's path is not its good result; and whether nothing lies there."""
    if found is None:
        if not os.path.exists(output.place):
            return ["never made"], True
        return [f"{output.display_path} is there, but not known to be finished"], True
    if isinstance(found, Unusable):
        return [f"its manifest {found.reason}"], not os.path.exists(output.place)
    if isinstance(found, Older):
        return outdated_reasons(output, found, produced, sources.tree_versions), False
    if (found.universe, found.output) != output.key:
        return [f"its manifest is that of {found.universe}/{found.output}"], False
    reasons = changes(output, found, provenance, produced)
    differs = difference(output.place, found.data)
    if differs:
        reasons.insert(0, f"{output.display_path} {differs}")
    return reasons, differs == "is missing"


def _not_there(inputs: list[Input]) -> str:
    what = "; ".join(f"input {given.id}: {given.text} does not exist" for given in inputs[:_SHOWN])
    more = f"; and {len(inputs) - _SHOWN} more" if len(inputs) > _SHOWN else ""
    return f"{what}{more}: put {'it' if len(inputs) == 1 else 'them'} there, or correct astra.yaml"


def _to_be_remade(names: list[str]) -> list[str]:
    if len(names) == 1:
        return [f"input {names[0]} is to be remade"]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"inputs {', '.join(names[:_SHOWN])}{more} are to be remade"]


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
