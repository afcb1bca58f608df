"""Adoption of the older tool's results: each gets a manifest of ours.

A plan takes the older tool's results as good where what it recorded still holds, and writes
nothing. Before a run builds on them they are read in full, once, and recorded as if they had been
made from what is there now; so later edits, of scripts too, are noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lightcone.spec.output import Key, Output
from lightcone.state.claims import Busy, Claim
from lightcone.state.fingerprint import fingerprint
from lightcone.state.manifest import (
    MANIFEST_VERSION,
    OLDER_VERSION,
    Manifest,
    inspect_manifest,
    write_manifest,
)
from lightcone.state.older import OlderRecord, find_older, older_as_manifest, outdated_reasons
from lightcone.state.plan import Assessment, State, assess
from lightcone.system.files import flush_tree

__all__ = ["adopt", "adopt_all"]


def adopt_all(assessed: Mapping[Key, Assessment], claims: Path, hashes: Path | None = None) -> bool:
    """Adopt every good result of the older tool, in the plan's order.

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
            input_versions = {
                each.id: versions.get((output.universe, each.producer))
                for each in output.inputs
                if each.producer is not None
            }
            assessment = adopt(assess(output, input_versions, hashes), claims, hashes)
        if assessment.is_good and assessment.manifest is not None:
            versions[key] = assessment.manifest.data.version
    return True


def adopt(assessment: Assessment, claims: Path, hashes: Path | None = None) -> Assessment:
    """Adopt an older tool's good result; otherwise return the assessment unchanged.

    Returns the assessment of what is there then: stale where the bytes turn out to be others than
    were recorded, or where a recipe is making or reading the output just now.

    Raises:
        SpecError: where a file that the output depends on cannot be read.
        SessionError: where the directory of the claims cannot be used.
    """
    output, provenance = assessment.output, assessment.provenance
    if not _is_older(assessment) or provenance is None:
        return assessment
    produced = {
        given.id: provenance.inputs[given.id].version
        for given in output.inputs
        if given.producer is not None
    }
    try:
        claim = Claim.take(output, claims)
        if isinstance(claim, Busy):
            return _as_stale(assessment, f"in use by {claim.by}")
        try:
            older = find_older(output)
            if inspect_manifest(output.state_dir) is None and isinstance(older, OlderRecord):
                reasons = outdated_reasons(output, older, produced, {}, thorough=True)
                if reasons:
                    return _as_stale(assessment, "; ".join(reasons))
                _record(output, older_as_manifest(output, older, provenance))
        finally:
            claim.release()
    except OSError:
        return assessment  # nothing can be written there, and it is as good as it was
    return assess(output, produced, hashes)


def _record(output: Output, manifest: Manifest) -> None:
    flush_tree(output.path)
    data = fingerprint(output.path)
    write_manifest(output.state_dir, replace(manifest, data=data, version=MANIFEST_VERSION))


def _is_older(assessment: Assessment) -> bool:
    manifest = assessment.manifest
    return (
        assessment.state is State.OK and manifest is not None and manifest.version == OLDER_VERSION
    )


def _as_stale(assessment: Assessment, why: str) -> Assessment:
    return replace(assessment, state=State.STALE, why=why, manifest=None)
