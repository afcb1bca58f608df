"""Planning many (output, universe) pairs that are all up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.samples import Aim, Contender, Row, Spread, interleave

__all__ = ["planning"]

_MADE = Path(__file__).resolve().parent.parent / "programs" / "made.py"
_MEGABYTE = 1e6


def planning(bench: Bench) -> list[Row]:
    """``lc run`` with nothing to do, for more and more pairs."""
    times = Row("planning", "Planning: (output, universe) pairs, all up to date; the whole command")
    memory = Row("planning-memory", "Planning: peak memory", "MB")
    contenders = []
    for pairs in bench.scale.pairs:
        root = bench.project(f"pairs-{pairs}", projects.flat(1))
        projects.write_pairs(root, pairs)
        bench.say(f"preparing {pairs} pairs")
        bench.run([sys.executable, str(_MADE), str(root)], root)
        contenders.append(_contender(bench, memory, pairs, root))
    interleave(times, contenders, bench.scale.rounds)
    least, most = bench.scale.pairs[-2:]
    name, before = _name(most), _name(least)
    times.aims.append(Aim(name, Spread.of(times.samples[name]), 5.0 * most / 50_000, unit="s"))
    memory.aims.append(Aim(name, Spread.of(memory.samples[name]), 500.0, unit="MB"))
    growth = times.ratio(name, before)
    if growth is not None:
        scale = least / most
        slope = Spread(growth.median * scale, growth.low * scale, growth.high * scale)
        # 1 is linear; below it the fixed cost of a command still shows.
        times.aims.append(Aim(f"cost of a pair, {name} ÷ {before}", slope, 1.1))
    memory.notes.append("A figure below some 40 MB is that of the program that measures.")
    if most < 50_000:
        times.notes.append(
            f"The aim of 5 s is for 50,000 pairs; here it is that share of {most:,}."
        )
    return [times, memory]


def _name(pairs: int) -> str:
    return f"{pairs:,} pair{'' if pairs == 1 else 's'}"


def _contender(bench: Bench, memory: Row, pairs: int, root: Path) -> Contender:
    def call() -> float:
        use = bench.run([bench.lc, "run", "--quiet"], root)
        memory.samples.setdefault(_name(pairs), []).append(use.peak_memory / _MEGABYTE)
        return use.seconds

    return Contender(_name(pairs), call, ours=True)
