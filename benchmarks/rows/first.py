"""The first output: without a session, and with one that is up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import projects
from benchmarks.bench import Bench, started
from benchmarks.environments import Absent, Environment
from benchmarks.ray_cluster import ray_cluster
from benchmarks.samples import Contender, Failed, Row, interleave
from lightcone.session.spawn import create_key

__all__ = ["first_cold", "first_live", "two_programs"]

_PROGRAMS = Path(__file__).resolve().parent.parent / "programs"
_SCRIPT = "a LocalCluster script"
_BY_HAND = "the engine's two programs by hand, TLS"
_HYPERQUEUE = "HyperQueue, a script"
_RAY = "Ray, started, one job"
_RAY_LIVE = "Ray, one job, live"
_ENGINE = 'python -c "import distributed"'


def first_cold(bench: Bench) -> list[Row]:
    """One output, made where nothing runs yet."""
    row = Row("first-cold", "First output, no session: the whole command, the session left running")
    root = bench.project("first-cold", projects.flat(1))

    contenders = [Contender("lc run", partial(bench.cold_seconds, root), ours=True)]
    engine = bench.alternative("engine")
    if isinstance(engine, Absent):
        row.absent |= dict.fromkeys((_SCRIPT, _BY_HAND), engine.why)
    else:
        contenders.append(_script(bench, _SCRIPT, engine, "local_cluster.py"))

        def by_hand() -> float:
            with two_programs(bench, engine) as (seconds, _):
                return seconds

        contenders.append(Contender(_BY_HAND, by_hand))
    hyperqueue = bench.alternative("hyperqueue")
    if isinstance(hyperqueue, Absent):
        row.absent[_HYPERQUEUE] = hyperqueue.why
    else:
        contenders.append(_script(bench, _HYPERQUEUE, hyperqueue, "hyperqueue_tasks.py"))
    ray = bench.alternative("ray")
    if isinstance(ray, Absent):
        row.absent[_RAY] = ray.why
    else:

        def one_job() -> float:
            begun = time.perf_counter()
            with ray_cluster(bench, ray) as cluster:
                cluster.submit("sh", "-c", "echo x > x")
                return time.perf_counter() - begun

        contenders.append(Contender(_RAY, one_job, bench.scale.slow_rounds))
    interleave(row, contenders, bench.scale.rounds)
    row.aim("lc run", _SCRIPT, 1.0)
    row.aim("lc run", _BY_HAND, 1.35)
    row.notes.append(
        "The two programs are measured to the end of their first task, the scripts to their own "
        "end, which ends their cluster too. They write no manifest and no log."
    )
    return [row]


def first_live(bench: Bench) -> list[Row]:
    """One output, made where a session is up."""
    row = Row("first-live", "First output, live session: the whole command")
    root = bench.project("first-live", projects.flat(1))
    bench.run([bench.lc, "session", "start"], root)

    def lc() -> float:
        bench.put_away(root / "results")
        return bench.seconds([bench.lc, "run"], root)

    statement = [sys.executable, "-c", "import distributed"]
    contenders = [
        Contender(_ENGINE, lambda: bench.seconds(statement, root)),
        Contender("lc run", lc, ours=True),
    ]
    with contextlib.ExitStack() as stack:
        ray = bench.alternative("ray")
        if isinstance(ray, Absent):
            row.absent[_RAY_LIVE] = ray.why
        else:
            try:
                cluster = stack.enter_context(ray_cluster(bench, ray))
                cluster.submit("true")
            except Failed as error:
                row.drop(_RAY_LIVE, error)
            else:
                submit = partial(cluster.submit, "sh", "-c", "echo x > x")
                contenders.append(Contender(_RAY_LIVE, submit, bench.scale.slow_rounds))
        interleave(row, contenders, bench.scale.many_rounds)
    bench.run([bench.lc, "session", "stop"], root)
    row.aim("lc run", _ENGINE, 1.5)
    return [row]


@contextlib.contextmanager
def two_programs(
    bench: Bench, engine: Environment
) -> Iterator[tuple[float, subprocess.Popen[str]]]:
    """The engine's two programs, started by hand: the seconds to their first task, and the parent.

    Raises:
        Failed: where the first task does not come about.
    """
    place = bench.place("by-hand")
    key = place / "key.pem"
    create_key(key)
    begun = time.perf_counter()
    program = started(
        [engine.python, str(_PROGRAMS / "two_programs.py"), str(key), str(place)],
        cwd=place,
        env=bench.environment(engine),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with program:
        assert program.stdout is not None
        line = program.stdout.readline()
        seconds = time.perf_counter() - begun
        if line.strip() != "first":
            raise Failed("the engine's two programs did not run their first task")
        yield seconds, program


def _script(bench: Bench, name: str, where: Environment, program: str) -> Contender:
    def call() -> float:
        place = bench.place("script")
        argv = [where.python, str(_PROGRAMS / program), "1", str(place)]
        return bench.seconds(argv, bench.others, env=bench.environment(where))

    return Contender(name, call)
