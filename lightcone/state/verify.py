"""Verification of results: every byte, and every link between manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lightcone.spec.output import Key, Output
from lightcone.state.fingerprint import fingerprint
from lightcone.state.manifest import Manifest, Unusable, inspect_manifest
from lightcone.state.older import OlderRecord, find_older, has_version, output_has_version

__all__ = ["Finding", "Trouble", "verify"]


_OTHER_BYTES = "its bytes are not those that were made"


class Trouble(StrEnum):
    """The kinds of problems with a result."""

    TAMPERED = "tampered"
    MISSING = "missing"
    BROKEN = "broken chain"
    DAMAGED = "damaged record"
    NEWER = "newer record"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with one output's result, described in a phrase."""

    output: Output
    trouble: Trouble
    description: str


def verify(outputs: Sequence[Output]) -> tuple[int, list[Finding]]:
    """Return the number of results checked, and the findings.

    An output without a manifest claims nothing, so there is nothing to verify. One that was made
    from another version of an input than is there now is a broken chain. Results of the older
    tool that no run has taken over yet are held against its own records.
    """
    records = {
        output.key: inspect_manifest(output.state_dir) or find_older(output) for output in outputs
    }
    findings: list[Finding] = []
    for output in outputs:
        manifest = records[output.key]
        if isinstance(manifest, Unusable):
            description = f"its manifest {manifest.reason}"
            trouble = Trouble.NEWER if manifest.is_newer else Trouble.DAMAGED
            findings.append(Finding(output, trouble, description))
        elif isinstance(manifest, Manifest):
            findings += _check(output, manifest, records)
        elif manifest is not None:
            findings += _check_older(output, manifest)
    return sum(manifest is not None for manifest in records.values()), findings


def _check(output: Output, manifest: Manifest, others: Mapping[Key, object]) -> list[Finding]:
    findings = []
    if manifest.provenance.identity != manifest.identity:
        description = "its manifest was changed by hand"
        findings.append(Finding(output, Trouble.DAMAGED, description))
    try:
        data = fingerprint(output.path, recorded=manifest.data)
    except FileNotFoundError:
        findings.append(Finding(output, Trouble.MISSING, "what it describes is gone"))
    except OSError as error:
        description = f"it cannot be read ({error.strerror})"
        findings.append(Finding(output, Trouble.MISSING, description))
    else:
        if data.version != manifest.data.version:
            findings.append(Finding(output, Trouble.TAMPERED, _OTHER_BYTES))
    for given in output.inputs:
        source = manifest.provenance.inputs.get(given.id)
        if given.producer is None or source is None:
            continue
        producer = others.get((output.universe, given.producer))
        if not isinstance(producer, Manifest):
            description = f"the input {given.id} that it was made from has no record"
            findings.append(Finding(output, Trouble.BROKEN, description))
        elif producer.data.version != source.version:
            findings.append(_broken(output, given.id))
    return findings


def _check_older(output: Output, record: OlderRecord) -> list[Finding]:
    findings = []
    versions: dict[str, str] = {}
    if not has_version(output.path, record.data, -1, versions):
        findings.append(Finding(output, Trouble.TAMPERED, _OTHER_BYTES))
    for given in output.inputs:
        version = record.inputs.get(given.id)
        if given.producer is None or version is None:
            continue
        if not output_has_version(given.path, version, versions):
            findings.append(_broken(output, given.id))
    return findings


def _broken(output: Output, name: str) -> Finding:
    return Finding(output, Trouble.BROKEN, f"it was made from another {name} than is there now")
