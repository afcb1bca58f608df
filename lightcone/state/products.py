"""Side products: files that a command or its scripts name and its recipe writes.

They must not make an output stale, or every run would. A recipe shows them by running: a file that
was not there when it began, and is there when it has ended, is its product. So is one that was
there and has changed, if the text shows it to be written (``>``, ``tee``, ``open(path, "w")``);
without that, somebody else may have edited it, and the output is stale. A product stays one for as
long as it is there and the recipe that names it is declared as it was; after that, if it changed
again. That holds for the files of a pattern, too, unless it matched a source before: then a file
that joins them may be anybody's, and counts. A script is a product only if it is shown to be
written and was not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightcone.errors import LightconeError
from lightcone.spec.inputs import match_again
from lightcone.spec.output import Output
from lightcone.state.changes import observed_changes
from lightcone.state.commands import CommandScanner
from lightcone.state.dependencies import SourceFiles
from lightcone.state.imports import Found, is_script
from lightcone.state.manifest import Manifest, Provenance, read_manifest
from lightcone.state.observed import observed_now
from lightcone.state.partial import products_of, read_failure
from lightcone.state.tokens import describe_changed, take_tokens

__all__ = ["Products", "products_left"]


class Products:
    """The side products of one recipe, from before it runs until afterwards.

    Create it before the previous result is set aside, because it reads that manifest;
    ``is_first`` means that there is neither that nor any other record of the output.
    """

    def __init__(self, output: Output, provenance: Provenance, *, is_first: bool = False) -> None:
        self._output = output
        self._provenance = provenance
        self._recorded: set[str] = set()
        if not is_first:
            recorded = read_manifest(output.state_dir)
            failure = read_failure(output.state_dir)
            if recorded is not None:
                self._recorded |= set(recorded.products)
            if failure is not None:
                self._recorded |= products_of(failure, output)
        found = self._found()
        before, self._written = found.files, found.written
        self._recorded.update(
            name for name in found.written & provenance.files.keys() if not is_script(name)
        )
        self._present_before = set(before)
        # Whoever adds a file to those of a pattern adds a source, whenever it is.
        self._patterns = {way.pattern for name, way in before.items() if name not in self._recorded}
        self._patterns.discard("")

    def found(self) -> list[str]:
        """Return the files that the recipe finds, and that are not its products.

        They are in its journal, so that :func:`products_left` can tell them after any end.
        """
        sources = self._present_before & self._provenance.files.keys()
        return sorted((self._present_before - self._recorded) | sources)

    def detect(self, changed: Iterable[str] = ()) -> list[str]:
        """Return the products of the recipe, which has ended.

        ``changed`` are sources that changed.
        """
        found = self._found()
        files, written = found.files, self._written | found.written | self._recorded
        present = {
            name
            for name, way in files.items()
            if way.pattern not in self._patterns or name in self._recorded
        }
        sources = self._provenance.files.keys() - set(changed)
        made = (present - self._present_before) | (self._recorded & present)
        return sorted(name for name in made - sources if name in written or not is_script(name))

    def add_to(self, manifest: Manifest, changed: Sequence[str] = ()) -> Manifest:
        """Return ``manifest`` with the products and the sources and inputs that ``changed``."""
        products = self._products_given(changed)
        if not products and not changed:
            return manifest
        files = manifest.provenance.files
        provenance = replace(
            manifest.provenance,
            files={name: stamp for name, stamp in files.items() if name not in products},
        )
        return replace(
            manifest,
            provenance=provenance,
            identity=provenance.identity,
            products=tuple(products),
            disturbed=tuple(name for name in changed if name not in products),
        )

    def detect_after_failure(self) -> list[str]:
        """Return the products of a recipe that has failed."""
        try:
            changed = self.changed_sources()
        except (OSError, LightconeError):
            changed = []
        return self._products_given(changed)

    def describe_disturbed(self, changed: Sequence[str]) -> str:
        """Describe, as a clause, that the sources and inputs in ``changed`` did; "" without any.

        What the recipe was observed to use before is compared here.
        """
        products = self._products_given(changed)
        before = self._provenance.observed
        sources = SourceFiles(self._output.root, unreadable=set())
        sources.learn(self._provenance)
        now = observed_now(before, sources, self._output) if before else before
        names = dict.fromkeys(each for each in changed if each not in products)
        names.update(
            dict.fromkeys(name for each in observed_changes(before, now) for name in each.files)
        )
        return describe_changed(self._output, list(names))

    def take_tokens(self) -> dict[str, dict[str, str]]:
        """Return the tokens of the sources and inputs, before the recipe runs."""
        files = self._provenance.files.keys() - self._recorded
        return take_tokens(self._output, files | self._provenance.observed.files.keys())

    def _products_given(self, changed: Sequence[str]) -> list[str]:
        return self.detect(set(changed) & self._recorded)

    def _found(self) -> Found:
        return CommandScanner(self._output.root).found(self._output.command)

    def changed_sources(self, *, unless_product: bool = False, observed: bool = True) -> list[str]:
        """Return the sources and outside inputs that differ from the provenance.

        Sources by their path from the root, inputs by id. A file that differs in size, time or
        inode, and cannot be read, counts as changed. With ``unless_product`` the recorded products
        of the recipe are left out. Files that it was ``observed`` to read are sources, too.
        """
        files = self._provenance.files
        if observed:
            files = self._provenance.observed.files | files
        output = match_again(self._output)
        outside = [given for given in output.inputs if given.producer is None]
        if not files and not outside:
            return []
        sources = SourceFiles(self._output.root)
        sources.learn(self._provenance)
        changed = []
        for name, before in files.items():
            if unless_product and name in self._recorded:
                continue
            try:
                now = sources.file(name, self._output)
            except LightconeError:
                now = None
            if now is None or now.sha256 != before.sha256:
                changed.append(name)
        for given in outside:
            try:
                version = sources.input_data(given, output).version
            except LightconeError:
                version = ""
            if version != self._provenance.inputs[given.id].version:
                changed.append(given.id)
        return changed


def products_left(output: Output, journal: Mapping[str, Any]) -> list[str] | None:
    """Return the products of a recipe that was killed, of which there is the journal.

    None where the journal does not tell.
    """
    found = journal.get("found")
    if journal.get("template") != output.template or not isinstance(found, list):
        return None
    if not all(isinstance(name, str) for name in found):
        return None
    files, _, written = CommandScanner(output.root).found(output.command)
    patterns = {files[name].pattern for name in found if name in files} - {""}
    return sorted(
        name
        for name, way in files.items()
        if name not in found
        and way.pattern not in patterns
        and (name in written or not is_script(name))
    )
