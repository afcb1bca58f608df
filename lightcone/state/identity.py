"""The provenance of an output, and the changes in it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from lightcone.spec.output import Input, Output
from lightcone.state.dependencies import SourceFiles, ignored
from lightcone.state.imports import is_script
from lightcone.state.manifest import UNOBSERVED, Manifest, Provenance, Source, Stamp
from lightcone.state.names import does_count
from lightcone.state.observed import changes_of, observed_now

__all__ = ["changes", "describe_disturbed", "identify"]

_NOTHING = Provenance("", "")


def identify(
    output: Output,
    versions: Mapping[str, str],
    recorded: Manifest | None,
    sources: SourceFiles | None = None,
) -> Provenance:
    """Determine the command, container, decisions, files and inputs of ``output``.

    Args:
        output: the output.
        versions: the data version of each input that an output makes, by input id.
        recorded: its last manifest; files that match the stamps in it are not read again.
        sources: the project's files, shared by a plan of many outputs.

    Raises:
        SpecError: where a file it depends on cannot be read.
    """
    if sources is None:
        sources = SourceFiles(output.root)
        if recorded is not None:
            sources.learn(recorded.provenance)
    before = _NOTHING if recorded is None else recorded.provenance
    inputs = {}
    for given in output.inputs:
        if given.producer is None:
            data = sources.input_data(given, output)
            version, stamps = data.version, data.files
        else:
            version, stamps = versions[given.id], {}
        source = before.inputs.get(given.id)
        if (
            source is not None
            and source.version != version
            and _is_same_tree(source, given, stamps, output)
        ):
            version, stamps = source.version, source.files
        if source is None or (source.text, source.version, source.files) != (
            given.text,
            version,
            stamps,
        ):
            source = Source(given.text, version, stamps)
        inputs[given.id] = source
    files = sources.project_files(output)
    products = recorded.products if recorded is not None else ()
    if products and before.template == output.template:
        files = {name: stamp for name, stamp in files.items() if name not in products}
    if output.container is not None and output.container not in files:
        stamp = sources.file(output.container, output)
        if stamp is not None:
            files = files | {output.container: stamp}
    decisions = dict(output.decisions)
    observed = UNOBSERVED
    if before.observed and output.command == before.command:
        observed = observed_now(before.observed, sources, output)
    # Of tens of thousands most are as they were: then one record of it is enough.
    if (
        before.command == output.command
        and before.template == output.template
        and before.container == output.container
        and before.files == files
        and before.inputs == inputs
        and before.decisions == decisions
        and before.observed is observed
    ):
        return before
    return Provenance(
        output.command, output.template, output.container, files, inputs, decisions, observed
    )


def changes(
    output: Output, recorded: Manifest, now: Provenance, produced: Collection[str]
) -> list[str]:
    """Describe each change since ``recorded``; empty if the identity is unchanged.

    ``produced`` are the inputs that outputs make.
    """
    before = recorded.provenance
    if before is now and not recorded.disturbed:
        return []
    reasons = []
    rewritten = before.template != now.template
    if before.command != now.command and rewritten:
        reasons.append("recipe changed")
    if before.container != now.container:
        reasons.append(f"container: {before.container or 'none'} → {now.container or 'none'}")
    if before.decisions != now.decisions:
        for name in dict.fromkeys([*before.decisions, *now.decisions]):
            old, new = before.decisions.get(name), now.decisions.get(name)
            if old != new:
                reasons.append(f"decision {name}: {old or 'none'} → {new or 'none'}")
    for name in dict.fromkeys([*before.files, *now.files]):
        then, stamp = before.files.get(name), now.files.get(name)
        if stamp is None:
            is_there = os.path.exists(output.root / name)
            reasons.append(f"{name} is no longer used" if is_there else f"{name} is gone")
        elif then is None:
            reasons.append(f"{name} is new")
        elif name in recorded.disturbed:
            reasons.append(_changed_meanwhile(name, None))
        elif then.sha256 != stamp.sha256:
            reasons.append(f"{name} changed")
    if before.command == now.command:
        described = before.files.keys() | now.files.keys()
        reasons += changes_of(before.observed, now.observed, described)
    for name in dict.fromkeys([*before.inputs, *now.inputs]):
        source, current = before.inputs.get(name), now.inputs.get(name)
        if current is None:
            reasons.append(f"input {name} was removed")
        elif source is None:
            reasons.append(f"input {name} was added")
        elif name in recorded.disturbed:
            reasons.append(_changed_meanwhile(name, current))
        elif source.version != current.version:
            if name in produced:
                reasons.append(f"input {name} was remade")
            elif source.text != current.text:
                reasons.append(f"input {name}: {source.text} → {current.text}")
            else:
                reasons.append(_input_changed(name, source, current))
    if before.command != now.command and not reasons:
        reasons += [
            f"input {name}: {before.inputs[name].text} → {current.text}"
            for name, current in now.inputs.items()
            if before.inputs[name].text != current.text
        ] or ["command changed"]
    return reasons


def _is_same_tree(
    source: Source, given: Input, stamps: Mapping[str, Stamp], output: Output
) -> bool:
    """Return whether a directory only lacks recorded files that do not count any more.

    An earlier lc counted them, or other settings.
    """
    if "" in stamps or given.producer is not None or not os.path.isdir(given.place or ""):
        return False
    ignore = ignored(output.ignore)
    counting = {
        name: stamp.sha256 for name, stamp in source.files.items() if does_count(name, ignore)
    }
    return counting == {name: stamp.sha256 for name, stamp in stamps.items()}


def _input_changed(name: str, before: Source, now: Source) -> str:
    """Describe a change of an input, with the first of the files that changed."""
    changed = [
        file
        for file in dict.fromkeys([*now.files, *before.files])
        if getattr(before.files.get(file), "sha256", None)
        != getattr(now.files.get(file), "sha256", None)
    ]
    if not changed or "" in changed:
        return f"input {name} changed ({now.text})"
    file = min(changed)
    what = "changed" if file in before.files and file in now.files else "is new"
    if file not in now.files:
        what = "is gone"
    more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"input {name} changed ({now.text}: {file} {what}{more})"


def describe_disturbed(manifest: Manifest) -> str:
    """Describe, as :func:`changes` does, what changed while the recipe of ``manifest`` ran."""
    provenance = manifest.provenance
    return "; ".join(
        _changed_meanwhile(name, provenance.inputs.get(name)) for name in manifest.disturbed
    )


def _changed_meanwhile(name: str, source: Source | None) -> str:
    if source is not None:
        return f"input {name} changed while it was made ({source.text})"
    if is_script(name):
        return f"{name} changed while it was made"
    return f"{name} changed while it was made; remove it if the recipe writes it"
