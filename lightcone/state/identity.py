"""The provenance that an output would have if it were made now."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lightcone.spec.output import Input, Output
from lightcone.state.dependencies import SourceFiles, ignored
from lightcone.state.manifest import UNOBSERVED, Manifest, Provenance, Source, Stamp
from lightcone.state.observed import observed_now
from lightcone.state.trees import does_count

__all__ = ["identify"]

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
        stamp = sources.container_file(output)
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
