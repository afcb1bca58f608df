"""Side products: files that a command names and its recipe writes, a log for instance.

They must not make an output stale, or every run would. What a command shows to be written (``>``,
``tee``) is no source anyway. Of other files a recipe shows it by running: one that was not there
when it began, and is there when it has ended, is its product. It stays one for as long as it is
there and the recipe that names it is declared as it was; after that, if it changed again. A file
that was there at first and has changed may have been edited by somebody, and is only reported as
such; nor is a script ever a product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lightcone.errors import LightconeError
from lightcone.spec.output import Output
from lightcone.state.dependencies import CommandScanner, SourceFiles
from lightcone.state.imports import is_script
from lightcone.state.manifest import Manifest, Provenance, read_manifest
from lightcone.state.partial import products_of, read_failure

__all__ = ["Products"]


class Products:
    """The files that one recipe names, from before it runs until it has.

    To be made before the previous result is set aside, whose manifest says what it knew;
    ``is_first`` says that there is neither that nor anything else that is known of the output.
    """

    def __init__(self, output: Output, provenance: Provenance, *, is_first: bool = False) -> None:
        self._output = output
        self._provenance = provenance
        self._before = set(self._named())
        self._known: set[str] = set()
        if is_first:
            return
        recorded = read_manifest(output.state_dir)
        failure = read_failure(output.state_dir)
        if recorded is not None:
            self._known |= set(recorded.products)
        if failure is not None:
            self._known |= products_of(failure, output)

    def found(self, changed: Iterable[str] = ()) -> list[str]:
        """The products, now that the recipe has ended; ``changed`` are sources that changed."""
        there = set(self._named())
        sources = self._provenance.files.keys() - set(changed)
        made = (there - self._before) | (self._known & there)
        return sorted(name for name in made - sources if not is_script(name))

    def enter(self, manifest: Manifest) -> Manifest:
        """``manifest``, with the products and with those sources that changed meanwhile."""
        try:
            changed = self._changed()
        except LightconeError:
            return manifest
        products = self.found(set(changed) & self._known)
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

    def _named(self) -> tuple[str, ...]:
        return CommandScanner(self._output.root).named(self._output.command)

    def _changed(self) -> list[str]:
        """What the output was made from and has changed since."""
        if not self._provenance.files:
            return []
        sources = SourceFiles(self._output.root)
        sources.learn(self._provenance)
        found = []
        for name, before in self._provenance.files.items():
            now = sources.file(name, self._output)
            if now is not None and now.sha256 != before.sha256:
                found.append(name)
        return found
