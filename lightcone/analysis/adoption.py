"""Taking over what the older tool made: from then on a result has a manifest of ours.

A plan takes the older tool's results as good where what it recorded still holds, and writes
nothing. Before a run builds on them they are read in full, once, and recorded as if they had been
made from what is there now; so later edits, of scripts too, are noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lightcone.analysis import manifest as manifests
from lightcone.analysis import older
from lightcone.analysis.claims import Claim
from lightcone.analysis.manifest import OLDER, Manifest
from lightcone.analysis.output import Key, Output
from lightcone.analysis.output_locks import Busy
from lightcone.analysis.plan import Assessment, State, assess
from lightcone.files import flush_tree

__all__ = ["adopt", "adopt_all"]


def adopt_all(assessed: Mapping[Key, Assessment], claims: Path, hashes: Path | None = None) -> bool:
    """Take over every result of the older tool that a plan found good, in the plan's order.

    Returns whether there was any, and so whether to plan again.

    Raises:
        SpecError: where a file that an output depends on cannot be read.
        SessionError: where the directory of the claims cannot be used.
    """
    if not any(_is_older(assessment) for assessment in assessed.values()):
        return False
    versions: dict[Key, str] = {}
    for key, assessment in assessed.items():
        if _is_older(assessment):
            output = assessment.output
            given = {
                each.id: versions.get((output.universe, each.producer))
                for each in output.inputs
                if each.producer is not None
            }
            assessment = adopt(assess(output, given, hashes), claims, hashes)
        if assessment.state is State.OK and assessment.manifest is not None:
            versions[key] = assessment.manifest.data.version
    return True


def adopt(assessment: Assessment, claims: Path, hashes: Path | None = None) -> Assessment:
    """Take over a good result of the older tool; any other assessment is returned as it is.

    Returns the assessment of what is there then: stale where the bytes turn out to be others than
    were recorded, or where somebody is making or reading the output just now.

    Raises:
        SpecError: where a file that the output depends on cannot be read.
        SessionError: where the directory of the claims cannot be used.
    """
    output, parts = assessment.output, assessment.parts
    if not _is_older(assessment) or parts is None:
        return assessment
    produced = {
        given.id: parts.inputs[given.id].version
        for given in output.inputs
        if given.producer is not None
    }
    try:
        claim = Claim.take(output, claims)
        if isinstance(claim, Busy):
            return _not_good(assessment, f"in use by {claim.by}")
        try:
            found = older.find(output)
            if manifests.inspect(output.state_dir) is None and isinstance(found, older.Older):
                reasons = older.judge(output, found, produced, {}, thorough=True)
                if reasons:
                    return _not_good(assessment, "; ".join(reasons))
                _record(output, older.as_manifest(output, found, parts))
        finally:
            claim.release()
    except OSError:
        return assessment  # nothing can be written there, and it is as good as it was
    return assess(output, produced, hashes)


def _record(output: Output, found: Manifest) -> None:
    flush_tree(output.path)
    data = manifests.fingerprint(output.path)
    manifests.write(output.state_dir, replace(found, data=data, version=manifests.VERSION))


def _is_older(assessment: Assessment) -> bool:
    manifest = assessment.manifest
    return assessment.state is State.OK and manifest is not None and manifest.version == OLDER


def _not_good(assessment: Assessment, why: str) -> Assessment:
    return replace(assessment, state=State.STALE, why=why, manifest=None)
