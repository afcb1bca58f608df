"""Many instant recipes: 18 on 4 levels, and thousands side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.environments import Absent, Environment
from benchmarks.ray_cluster import ray_cluster
from benchmarks.samples import Contender, Failed, Row, interleave

__all__ = ["levels_18", "recipes"]

_PROGRAMS = Path(__file__).resolve().parent.parent / "programs"
_OLDER = "lightcone-cli 0.4.2"
_CHART = (10, 100)


def levels_18(bench: Bench) -> list[Row]:
    """18 outputs on 4 levels, without a session, beside the older tool."""
    row = Row("levels", "18 outputs on 4 levels, instant recipes, no session; the whole command")
    root = bench.project("levels", projects.levels())

    contenders = [Contender("lc run", partial(bench.cold_seconds, root), ours=True)]
    older = bench.alternative("older")
    if isinstance(older, Absent):
        row.absent[_OLDER] = older.why
    else:

        def old() -> float:
            there = bench.place("levels-older")
            (there / "astra.yaml").write_text(projects.levels())
            argv = [str(older.programs / "lc"), "run"]
            return bench.seconds(argv, there, env=bench.environment(older))

        contenders.append(Contender(_OLDER, old, bench.scale.slow_rounds))
    interleave(row, contenders, bench.scale.rounds)
    row.aim(_OLDER, "lc run", 40.0, at_least=True)
    return [row]


def recipes(bench: Bench) -> list[Row]:
    """Instant recipes with a live session: a row for each number of them."""
    return [_recipes(bench, count) for count in (*_CHART, *bench.scale.recipes)]


def _recipes(bench: Bench, count: int) -> Row:
    row = Row(
        f"recipes-{count}", f"{count:,} instant recipes, live session: outputs a second", "1/s"
    )
    make, others = f"make -j{bench.cores}", _others(bench, row, count)
    root = bench.project(f"recipes-{count}", projects.flat(count))
    bench.run([bench.lc, "session", "start"], root)

    def lc() -> float:
        bench.put_away(root / "results")
        return count / bench.seconds([bench.lc, "run", "--quiet"], root)

    lc()  # the first run of a worker imports what later ones have
    interleave(row, [Contender("lc run", lc, ours=True), *others], bench.scale.rounds)
    bench.run([bench.lc, "session", "stop"], root)
    if count in bench.scale.recipes:
        row.aim(make, "lc run", 4.0)
        row.aim("HyperQueue", "lc run", 1.0)
        if count == bench.scale.recipes[0]:
            _add_ray(bench, row)
    row.notes.append(
        "lc, make and xargs are whole commands; the LocalCluster script and HyperQueue count from "
        "the submission, on a cluster that is up. Only lc writes manifests and logs, and flushes."
    )
    return row


def _others(bench: Bench, row: Row, count: int) -> list[Contender]:
    found: list[Contender] = []

    def add(name: str, there: Absent | str | Environment, call: Callable[[], float]) -> None:
        if isinstance(there, Absent):
            row.absent[name] = there.why
        else:
            found.append(Contender(name, call))

    make, xargs = bench.tool("make"), bench.tool("xargs")
    engine, hyperqueue = bench.alternative("engine"), bench.alternative("hyperqueue")

    def with_make() -> float:
        place = bench.place("make")
        (place / "Makefile").write_text(projects.makefile(count))
        return count / bench.seconds([str(make), "-s", f"-j{bench.cores}"], place)

    def with_xargs() -> float:
        place = bench.place("xargs")
        numbers = "".join(f"{number}\n" for number in range(count)).encode()
        argv = [str(xargs), f"-P{bench.cores}", "-I{}", "sh", "-c", "echo {} > o{}.txt"]
        return count / bench.seconds(argv, place, stdin=numbers)

    def script(where: Environment | Absent, program: str) -> float:
        assert isinstance(where, Environment)
        place = bench.place("script")
        argv = [where.python, str(_PROGRAMS / program), str(count), str(place)]
        return count / bench.told_seconds(argv, bench.others, bench.environment(where))

    add(f"make -j{bench.cores}", make, with_make)
    add(f"xargs -P{bench.cores}", xargs, with_xargs)
    add("a LocalCluster script", engine, lambda: script(engine, "local_cluster.py"))
    add("HyperQueue", hyperqueue, lambda: script(hyperqueue, "hyperqueue_tasks.py"))
    return found


def _add_ray(bench: Bench, row: Row) -> None:
    name, ray = f"Ray jobs ({bench.scale.ray_jobs}, one by one)", bench.alternative("ray")
    if isinstance(ray, Absent):
        row.absent[name] = ray.why
        return
    try:
        with ray_cluster(bench, ray) as cluster:
            cluster.submit("true")
            row.samples[name] = [
                1 / cluster.submit("sh", "-c", "echo x > x") for _ in range(bench.scale.ray_jobs)
            ]
    except Failed as error:
        row.drop(name, error)
