"""What a run has still to look at, what that waits for, and what has come out so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from lightcone.analysis import manifest as manifests
from lightcone.analysis.output import Key, Output

__all__ = ["Graph"]


class Graph:
    """The outputs of a run and what needs what.

    Attributes:
        outputs: every output, in dependency order.
        open: those of which it is not known yet what becomes of them.
        ready: those of which all inputs are good, in the order in which they became so.
        versions: the data version of each that is good.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = {output.key: output for output in outputs}
        self.open: set[Key] = set(self.outputs)
        self.versions: dict[Key, str] = {}
        self._producers = {
            output.key: {
                given.id: (output.universe, given.producer)
                for given in output.inputs
                if given.producer is not None
            }
            for output in outputs
        }
        self._consumers: dict[Key, list[Key]] = {}
        for key, needed in self._producers.items():
            for producer in dict.fromkeys(needed.values()):
                self._consumers.setdefault(producer, []).append(key)
        self.ready = deque(key for key in self.outputs if not self._producers[key])

    def producers(self, output: Output) -> Iterable[tuple[str, Output]]:
        """The inputs of ``output`` that outputs make: the id, and the output that makes it."""
        for name, key in self._producers[output.key].items():
            yield name, self.outputs[key]

    def good(self, output: Output, version: str) -> None:
        """The output is good: those are ready that waited for it alone."""
        self.versions[output.key] = version
        self.open.discard(output.key)
        for consumer in self._consumers.get(output.key, ()):
            if self.versions.keys() >= set(self._producers[consumer].values()):
                self.ready.append(consumer)

    def bad(self, output: Output) -> list[Output]:
        """The output cannot be made; returns those that need it and so cannot be made either."""
        self.open.discard(output.key)
        blocked = []
        waiting = deque(self._consumers.get(output.key, ()))
        while waiting:
            key = waiting.popleft()
            if key in self.open:
                self.open.discard(key)
                blocked.append(self.outputs[key])
                waiting.extend(self._consumers.get(key, ()))
        return blocked

    def again(self, output: Output) -> None:
        """The output is ready once more, with its inputs as they are recorded now."""
        for _, producer in self.producers(output):
            found = manifests.read(producer.state_dir)
            if found is not None:
                self.versions[producer.key] = found.data.version
        self.ready.append(output.key)
