"""Side products: files that a command names and its recipe writes.

They must not make an output stale, or every run would. What a command shows to be written (``>``,
``tee``) is no source anyway. Of other files a recipe shows it by running: one that was not there
when it began, and is there when it has ended, is its product. It stays one for as long as it is
there and the recipe that names it is declared as it was; after that, if it changed again. A file
that was there at first and has changed may have been edited by somebody, and is only reported as
such; nor is a script ever a product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from lightcone.errors import LightconeError
from lightcone.spec.output import Output
from lightcone.state.dependencies import CommandScanner, SourceFiles
from lightcone.state.imports import is_script
from lightcone.state.manifest import Manifest, Provenance, read_manifest
from lightcone.state.partial import products_of, read_failure

__all__ = ["Products", "products_left"]


class Products:
    """The side products of one recipe, from before it runs until afterwards.

    Create it before the previous result is set aside, because it reads that manifest;
    ``is_first`` means that there is neither that nor any other record of the output.
    """

    def __init__(self, output: Output, provenance: Provenance, *, is_first: bool = False) -> None:
        self._output = output
        self._provenance = provenance
        self._present_before = set(self._named_files())
        self._recorded: set[str] = set()
        if is_first:
            return
        recorded = read_manifest(output.state_dir)
        failure = read_failure(output.state_dir)
        if recorded is not None:
            self._recorded |= set(recorded.products)
        if failure is not None:
            self._recorded |= products_of(failure, output)

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
        present = set(self._named_files())
        sources = self._provenance.files.keys() - set(changed)
        made = (present - self._present_before) | (self._recorded & present)
        return sorted(name for name in made - sources if not is_script(name))

    def add_to(self, manifest: Manifest) -> Manifest:
        """Return ``manifest`` with the products and the changed sources."""
        try:
            changed = self._changed_sources()
        except LightconeError:
            return manifest
        products = self.detect(set(changed) & self._recorded)
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

    def _named_files(self) -> tuple[str, ...]:
        return CommandScanner(self._output.root).named_files(self._output.command)

    def _changed_sources(self) -> list[str]:
        """Return the sources that changed after the recipe began."""
        if not self._provenance.files:
            return []
        sources = SourceFiles(self._output.root)
        sources.learn(self._provenance)
        changed = []
        for name, before in self._provenance.files.items():
            now = sources.file(name, self._output)
            if now is not None and now.sha256 != before.sha256:
                changed.append(name)
        return changed


def products_left(output: Output, journal: Mapping[str, Any]) -> list[str] | None:
    """Return the products of a recipe that was killed, of which there is the journal.

    None where the journal does not tell.
    """
    found = journal.get("found")
    if journal.get("template") != output.template or not isinstance(found, list):
        return None
    present = CommandScanner(output.root).named_files(output.command)
    return sorted(name for name in present if name not in found and not is_script(name))
