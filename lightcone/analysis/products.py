"""Side products: files that a command names and its recipe writes, a log for instance.

They must not make an output stale, or every run would. What a command shows to be written (``>``,
``tee``) does not count as a source anyway. Of other files a recipe shows it by running: one that
was not there when it began, and is there when it has ended, is its product. It stays one for as
long as the recipe names it and is not itself changed. A file that was there and has changed may
have been edited by somebody, and is only reported as such; nor is a script ever a product.
"""

from __future__ import annotations

from dataclasses import replace

from lightcone.analysis.imports import is_script
from lightcone.analysis.manifest import Manifest, Parts, read
from lightcone.analysis.mentions import Mentions
from lightcone.analysis.output import Output
from lightcone.analysis.sources import Sources
from lightcone.errors import LightconeError

__all__ = ["Products"]


class Products:
    """The files that one recipe names, from before it runs until it has.

    Made before the previous result is set aside, whose manifest says what it knew.
    """

    def __init__(self, output: Output, parts: Parts) -> None:
        self._output = output
        self._parts = parts
        self._before = set(self._named())
        recorded = read(output.state_dir)
        self._known = () if recorded is None else recorded.products

    def enter(self, manifest: Manifest) -> Manifest:
        """``manifest`` with the products and what was disturbed, now that the recipe has run."""
        try:
            disturbed = self._changed()
        except LightconeError:
            return manifest
        parts = manifest.parts
        there = self._named()
        made = set(there) - self._before - parts.files.keys()
        kept = {
            name
            for name in self._known
            if name in there and (name not in parts.files or name in disturbed)
        }
        products = sorted(name for name in made | kept if not is_script(name))
        if not products and not disturbed:
            return manifest
        files = {name: stamp for name, stamp in parts.files.items() if name not in products}
        parts = replace(parts, files=files)
        return replace(
            manifest,
            parts=parts,
            identity=parts.identity,
            products=tuple(products),
            disturbed=tuple(name for name in disturbed if name not in products),
        )

    def _named(self) -> tuple[str, ...]:
        return Mentions(self._output.root).named(self._output.command)

    def _changed(self) -> list[str]:
        """What the output was made from and has changed since."""
        sources = Sources(self._output.root)
        sources.learn(self._parts)
        found = []
        for name, before in self._parts.files.items():
            now = sources.file(name, self._output)
            if now is not None and now.sha256 != before.sha256:
                found.append(name)
        return found
