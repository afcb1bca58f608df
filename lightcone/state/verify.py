"""Verification of results: every byte of them and of their sources, and every record.

A plan reads no file that matches its stamp. Verification reads all of them, and records in the
manifests which stamps it refutes, so that the next plan finds what verification found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from lightcone.errors import LightconeError
from lightcone.spec.output import Input, Key, Output
from lightcone.state.changes import Change, Kind, changes
from lightcone.state.claims import Busy, Claim, holder
from lightcone.state.dependencies import SourceFiles
from lightcone.state.fingerprint import REFUTED, UNTRUSTED, Data, Stamp, fingerprint
from lightcone.state.hash_cache import HashCache
from lightcone.state.identity import identify
from lightcone.state.manifest import (
    Manifest,
    Provenance,
    Unusable,
    inspect_manifest,
    read_manifest,
    write_manifest,
)
from lightcone.state.older import OlderRecord, find_older, has_version, output_has_version
from lightcone.state.partial import read_failure, without_products

__all__ = ["Finding", "Trouble", "Verification", "record_findings", "verify"]


_OTHER_BYTES = "its bytes are not those that were made"
_MAX_SHOWN = 3


class Trouble(StrEnum):
    """The kinds of problems with a result."""

    TAMPERED = "tampered"
    MISSING = "missing"
    UNRECORDED = "no record"
    CHANGED = "changed source"
    ABSENT = "missing source"
    BROKEN = "broken chain"
    DAMAGED = "damaged record"
    NEWER = "newer record"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with one output's result, described in a phrase.

    ``files`` are the files in question, as the project's directory shows them.
    """

    output: Output
    trouble: Trouble
    description: str
    files: tuple[str, ...] = ()


@dataclass(slots=True)
class Verification:
    """The outcome of a verification.

    Attributes:
        verified: the number of results with a record.
        findings: the problems, in the order of the outputs.
        corrected: the manifests to record, each with its output and the manifest that was read.
    """

    verified: int = 0
    findings: list[Finding] = field(default_factory=list)
    corrected: list[tuple[Output, Manifest, Manifest]] = field(default_factory=list)


def verify(
    outputs: Sequence[Output], others: Sequence[Output] = (), hashes: Path | None = None
) -> Verification:
    """Verify ``outputs``, which have a recipe each, by reading every byte.

    A result without a record is a finding, unless a recipe is making it now. An output that was
    made from another version of an input than is there now is a broken chain. Results of the older
    tool that no run has taken over yet are compared with its own records.

    Args:
        outputs: the outputs to verify.
        others: the project's other outputs, which may have been made from the same sources; the
            verification reports nothing about them, and corrects their manifests as well.
        hashes: where plans keep the hashes of files, so that none of them is an old one.
    """
    verification = Verification()
    if not outputs:
        return verification
    cache = _Unread(hashes, outputs[0].root)
    unreadable: set[str] = set()
    sources = SourceFiles(outputs[0].root, cache, unreadable)
    records = {
        output.key: inspect_manifest(output.state_dir) or find_older(output) for output in outputs
    }
    in_progress = {
        output.key for output in outputs if records[output.key] is None and holder(output)
    }
    for output in outputs:
        record = records[output.key]
        verification.verified += record is not None
        if record is None:
            if output.key not in in_progress and _is_there(output.place):
                description = f"{output.display_path} is there, and no manifest says what made it"
                verification.findings.append(_finding(output, Trouble.UNRECORDED, description))
        elif isinstance(record, Unusable):
            trouble = Trouble.NEWER if record.is_newer else Trouble.DAMAGED
            description = f"its manifest {record.reason}"
            verification.findings.append(_finding(output, trouble, description))
        elif isinstance(record, OlderRecord):
            verification.findings += _check_older(output, record)
        else:
            findings, corrected = _check(output, record, cache)
            differing, corrected = _check_sources(output, corrected, sources, unreadable)
            findings += differing
            findings += _check_chain(output, record, records, in_progress)
            if not findings and corrected is record:
                continue
            if inspect_manifest(output.state_dir) != record:
                continue  # another run has made it meanwhile
            verification.findings += findings
            if corrected is not record:
                verification.corrected.append((output, record, corrected))
    for output in others:
        manifest = read_manifest(output.state_dir)
        if manifest is not None:
            corrected = _check_sources(output, manifest, sources, unreadable)[1]
            if corrected is not manifest:
                verification.corrected.append((output, manifest, corrected))
    if verification.findings:
        cache.save()
    return verification


def record_findings(verification: Verification, claims: Path) -> list[str]:
    """Record the findings in the manifests; return a sentence for each output where it failed."""
    failures = []
    for output, before, corrected in verification.corrected:
        try:
            claim = Claim.take(output, claims)
            if isinstance(claim, Busy):
                failures.append(f"{output.name} is in use by {claim.by}")
                continue
            try:
                if read_manifest(output.state_dir) == before:
                    write_manifest(output.state_dir, corrected)
            finally:
                claim.release()
        except OSError as error:
            failures.append(f"{output.state_dir} cannot be written ({error.strerror})")
        except LightconeError as error:
            failures.append(str(error))
    return failures


class _Unread(HashCache):
    """A cache that takes stamps and gives none, so that every file is read."""

    def find(self, path: str, status: os.stat_result) -> Stamp | None:
        return None


def _finding(
    output: Output, trouble: Trouble, description: str, files: Sequence[str] = ()
) -> Finding:
    return Finding(output, trouble, description, tuple(files))


def _is_there(place: str) -> bool:
    if os.path.isdir(place):
        with os.scandir(place) as entries:
            return any(entries)
    return os.path.lexists(place)


def _check(output: Output, manifest: Manifest, cache: HashCache) -> tuple[list[Finding], Manifest]:
    """Compare a result with its manifest; return the corrected manifest too."""
    by_hand = _finding(output, Trouble.DAMAGED, "its manifest was changed by hand")
    findings = []
    if manifest.provenance.identity != manifest.identity:
        findings.append(by_hand)
        # A plan does not compute the identity of tens of thousands; none is plain to see.
        manifest = replace(manifest, identity="")
    try:
        data = fingerprint(output.path, recorded=manifest.data)
    except FileNotFoundError:
        findings.append(_finding(output, Trouble.MISSING, "what it describes is gone"))
        return findings, manifest
    except OSError as error:
        description = f"it cannot be read ({error.strerror})"
        findings.append(_finding(output, Trouble.MISSING, description))
        return findings, manifest
    if data.version != manifest.data.version:
        files = _differing(manifest.data.files, data.files)
        if files:
            paths = [_join(output.display_path, name) for name in files]
            within = f" ({_listing(files)})" if output.is_directory or files != [""] else ""
            findings.append(_finding(output, Trouble.TAMPERED, f"{_OTHER_BYTES}{within}", paths))
            for name in files:
                if name in data.files:
                    cache.keep(_join(output.place, name), data.files[name])
        else:
            if by_hand not in findings:
                findings.append(by_hand)
            manifest = replace(manifest, identity="")
    stamps = _corrected_stamps(manifest.data.files, data.files)
    if stamps is not manifest.data.files:
        manifest = replace(manifest, data=Data(manifest.data.version, stamps))
    return findings, manifest


def _check_sources(
    output: Output, manifest: Manifest, sources: SourceFiles, unreadable: Set[str]
) -> tuple[list[Finding], Manifest]:
    """Find what a plan says of the sources and inputs; return the corrected manifest too."""
    before = manifest.provenance
    # Those that outputs make are compared with these outputs' own records.
    produced = {
        given.id: before.inputs[given.id].version if given.id in before.inputs else ""
        for given in output.inputs
        if given.producer is not None
    }
    now = identify(output, produced, manifest, sources)
    now = without_products(now, read_failure(output.state), output)
    absent: list[Change] = []
    changed: list[Change] = []
    places = {given.text: given.place for given in output.inputs}
    for change in changes(output, manifest, now, produced):
        locked = [
            name
            for name in change.files
            if (places.get(name) or f"{output.root}/{name}") in unreadable
        ]
        if locked:
            absent.append(change._replace(reason=f"{_listing(locked)} cannot be read"))
        elif change.kind is Kind.GONE:
            absent.append(change)
        elif change.kind is Kind.SOURCE:
            changed.append(change)
    findings = []
    for trouble, found in ((Trouble.CHANGED, changed), (Trouble.ABSENT, absent)):
        if found:
            paths = dict.fromkeys(path for each in found for path in each.files)
            description = _listing([each.reason for each in found], "; ")
            findings.append(_finding(output, trouble, description, list(paths)))
    return findings, _with_corrected_stamps(manifest, now)


def _with_corrected_stamps(manifest: Manifest, now: Provenance) -> Manifest:
    before = manifest.provenance
    inputs = dict(before.inputs)
    for name, source in before.inputs.items():
        if name in now.inputs:
            stamps = _corrected_stamps(source.files, now.inputs[name].files)
            if stamps is not source.files:
                inputs[name] = replace(source, files=stamps)
    files = _corrected_stamps(before.files, now.files)
    observed = before.observed
    stamps = _corrected_stamps(observed.files, now.observed.files)
    if stamps is not observed.files:
        observed = replace(observed, files=stamps)
    if files is before.files and observed is before.observed and inputs == before.inputs:
        return manifest
    corrected = replace(before, files=files, inputs=inputs, observed=observed)
    return replace(manifest, provenance=corrected)


def _check_chain(
    output: Output, manifest: Manifest, records: Mapping[Key, object], in_progress: set[Key]
) -> list[Finding]:
    findings = []
    for given in output.inputs:
        source = manifest.provenance.inputs.get(given.id)
        if given.producer is None or source is None:
            continue
        key = (output.universe, given.producer)
        producer = records.get(key)
        if key in in_progress:
            continue
        if not isinstance(producer, Manifest):
            description = f"the input {given.id} that it was made from has no record"
            findings.append(_finding(output, Trouble.BROKEN, description))
        elif producer.data.version != source.version:
            findings.append(_broken(output, given.id))
    return findings


def _check_older(output: Output, record: OlderRecord) -> list[Finding]:
    findings = []
    versions: dict[str, str] = {}
    if not has_version(output.path, record.data, -1, versions):
        findings.append(_finding(output, Trouble.TAMPERED, _OTHER_BYTES))
    for given in output.inputs:
        version = record.inputs.get(given.id)
        if version is None:
            continue
        if given.producer is not None:
            if not output_has_version(given.path, version, versions):
                findings.append(_broken(output, given.id))
        elif not has_version(given.path, version, -1, versions):
            is_there = _input_is_there(given)
            verb = "changed or was touched since it was made" if is_there else "is gone"
            trouble = Trouble.CHANGED if is_there else Trouble.ABSENT
            description = f"input {given.id} ({given.text}) {verb}"
            findings.append(_finding(output, trouble, description, [given.text]))
    return findings


def _input_is_there(given: Input) -> bool:
    return given.place is not None and os.path.exists(given.place)


def _broken(output: Output, name: str) -> Finding:
    description = f"it was made from another {name} than is there now"
    return _finding(output, Trouble.BROKEN, description)


def _differing(before: Mapping[str, Stamp], now: Mapping[str, Stamp]) -> list[str]:
    """Return the names of files with other bytes, of new ones and of those that are gone."""
    return [
        name
        for name in sorted({*before, *now})
        if name not in before or name not in now or before[name].sha256 != now[name].sha256
    ]


def _corrected_stamps(before: dict[str, Stamp], now: Mapping[str, Stamp]) -> dict[str, Stamp]:
    """Return the stamps with each one refuted that a file with other bytes matches.

    A stamp that was refuted, and whose bytes are there again, is renewed. Returns ``before`` itself
    where all is well.
    """
    corrected = {
        name: _corrected(stamp, now[name]) if name in now else stamp
        for name, stamp in before.items()
    }
    return before if corrected == before else corrected


def _corrected(stamp: Stamp, now: Stamp) -> Stamp:
    if stamp.sha256 == now.sha256:
        return now if stamp.mtime_ns == REFUTED else stamp
    # The time of a stamp that was taken too soon is not known, so it may match.
    mtime_ns = stamp.mtime_ns if now.mtime_ns == UNTRUSTED else now.mtime_ns
    matched = stamp == now._replace(mtime_ns=mtime_ns, sha256=stamp.sha256)
    return stamp._replace(mtime_ns=REFUTED) if matched else stamp


def _listing(names: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"{separator.join(names[:_MAX_SHOWN])}{more}"


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if name else path
