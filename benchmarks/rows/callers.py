"""Many callers at once, where no session is up."""

from __future__ import annotations

import subprocess
import time

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.samples import Aim, Failed, Row, Spread

__all__ = ["callers"]


def callers(bench: Bench) -> list[Row]:
    """Each caller wants an output of its own; the last one's end counts."""
    count = bench.scale.callers
    name = f"{count} callers"
    row = Row("callers", f"{name} at once, no session: the last one's end")
    root = bench.project("callers", projects.flat(count + 1))
    ratios = []
    for _ in range(bench.scale.slow_rounds + 1):
        cold = bench.seconds([bench.lc, "run", f"o{count}"], root)
        warm = bench.run([bench.lc, "run", "--force", f"o{count}"], root)
        bench.run([bench.lc, "session", "stop"], root)
        seconds = _together(bench, [[bench.lc, "run", f"o{each}"] for each in range(count)], root)
        bench.run([bench.lc, "session", "stop"], root)
        bench.put_away(root / "results")
        allowed = cold + 1.3 * count * warm.cpu_seconds / bench.cores
        ratios.append(seconds / allowed)
        for label, value in (
            ("one cold start", cold),
            ("one warm call", warm.seconds),
            ("processor time of a warm call", warm.cpu_seconds),
            (name, seconds),
        ):
            row.samples.setdefault(label, []).append(value)
    text = f"{name} ÷ (cold start + 1.3 × {count} × warm call's processor time ÷ cores)"
    row.aims.append(Aim(text, Spread.of(ratios), 1.0))
    return [row]


def _together(bench: Bench, commands: list[list[str]], root: object) -> float:
    programs: list[subprocess.Popen[bytes]] = []
    begun = time.perf_counter()
    try:
        for command in commands:
            programs.append(
                subprocess.Popen(
                    command,
                    cwd=str(root),
                    env=bench.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        codes = [program.wait() for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    seconds = time.perf_counter() - begun
    if any(codes):
        raise Failed(f"{sum(map(bool, codes))} of {len(codes)} calls failed: {sorted(set(codes))}")
    return seconds
