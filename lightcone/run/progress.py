"""What a run has still to make and has not given to the cluster, for somebody who looks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

from lightcone.analysis.output import Key, Output
from lightcone.run.graph import Graph

__all__ = ["waiting"]

_LISTED = 100
_NAMED = 3


def waiting(
    graph: Graph, given: Collection[Key], claimed: Mapping[Key, str], jobs: float
) -> dict[str, Any]:
    """The outputs that wait with the driver, the first hundred by name, each with why.

    Args:
        graph: the run's.
        given: those that the cluster has.
        claimed: who makes those that somebody else was making when they were last looked at.
        jobs: how many the cluster may have at once.
    """
    ready = set(graph.ready)
    left = [key for key in graph.outputs if key in graph.open and key not in given]
    listed = [
        (graph.outputs[key].name, _why(graph, graph.outputs[key], key in ready, claimed, jobs))
        for key in islice(left, _LISTED)
    ]
    return {"waiting": listed, "waiting_count": len(left)}


def _why(
    graph: Graph, output: Output, is_ready: bool, claimed: Mapping[Key, str], jobs: float
) -> str:
    if is_ready:
        return f"for its turn: {jobs:g} at once, as -j says"
    needed = {producer.key: producer.name for _, producer in graph.producers(output)}
    missing = [name for key, name in needed.items() if key not in graph.versions]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        return f"for {', '.join(missing[:_NAMED])}{more}"
    return f"for {claimed[output.key]}" if output.key in claimed else "about to begin"
