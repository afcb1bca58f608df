"""A session that does nothing, and one that is stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import psutil

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.environments import Absent
from benchmarks.ray_cluster import ray_cluster
from benchmarks.rows.first import two_programs
from benchmarks.samples import Aim, Contender, Failed, Row, Spread, interleave

__all__ = ["idle", "stop"]

_MEGABYTE = 1e6
_LC = "lc session"
_BY_HAND = "the engine's two programs by hand, and their client"
_RAY = "Ray"
_SETTLED = 5.0


def stop(bench: Bench) -> list[Row]:
    """``lc session stop``, from the call to nothing left."""
    row = Row("stop", "Stop: from the call to nothing left; the whole command")
    root = bench.project("stop", projects.flat(1))

    def call() -> float:
        bench.run([bench.lc, "session", "start"], root)
        seconds = bench.seconds([bench.lc, "session", "stop"], root)
        left = bench.box.remains()
        if left:
            raise Failed("left behind by 'lc session stop':\n" + "\n".join(left))
        return seconds

    interleave(row, [Contender("lc session stop", call, ours=True)], bench.scale.many_rounds)
    value = Spread.of(row.samples["lc session stop"])
    row.aims.append(Aim("lc session stop", value, 0.5, unit="s"))
    return [row]


def idle(bench: Bench) -> list[Row]:
    """The memory and processor time of clusters that have run one task and then do nothing."""
    seconds = bench.scale.idle_seconds
    shared = Row("idle-memory", "Idle: memory of all processes, shared pages once (PSS)", "MB")
    resident = Row("idle-resident", "Idle: memory of all processes, each by itself (RSS)", "MB")
    busy = Row("idle-cpu", f"Idle: processor time over {seconds:g} s, of one core", "%")
    rows = [shared, resident, busy]
    root = bench.project("idle", projects.flat(1))
    bench.run([bench.lc, "run"], root)
    members: dict[str, list[psutil.Process]] = {_LC: bench.box.processes()}
    with contextlib.ExitStack() as stack:
        for name, start in ((_BY_HAND, _by_hand), (_RAY, _ray)):
            try:
                members[name] = _family(start(bench, stack))
            except (Failed, psutil.Error) as error:
                for row in rows:
                    row.drop(name, error)
        time.sleep(_SETTLED)
        before = {name: _used(processes) for name, processes in members.items()}
        begun = time.monotonic()
        time.sleep(seconds)
        for name, processes in members.items():
            used = _used(processes) - before[name]
            busy.samples[name] = [100 * used / (time.monotonic() - begun)]
            memory = [_memory(process) for process in processes]
            shared.samples[name] = [sum(pss for pss, _ in memory) / _MEGABYTE]
            resident.samples[name] = [sum(rss for _, rss in memory) / _MEGABYTE]
    bench.run([bench.lc, "session", "stop"], root)
    shared.aims.append(Aim(f"{_LC}, PSS", Spread.of(shared.samples[_LC]), 180.0, unit="MB"))
    resident.aims.append(Aim(f"{_LC}, RSS", Spread.of(resident.samples[_LC]), 180.0, unit="MB"))
    busy.aims.append(Aim(f"{_LC}, processor time", Spread.of(busy.samples[_LC]), 1.0, unit="%"))
    busy.notes.append("All of them were watched at the same time.")
    return rows


def _by_hand(bench: Bench, stack: contextlib.ExitStack) -> psutil.Process:
    engine = bench.alternative("engine")
    if isinstance(engine, Absent):
        raise Failed(engine.why)
    _, program = stack.enter_context(two_programs(bench, engine))
    return psutil.Process(program.pid)


def _ray(bench: Bench, stack: contextlib.ExitStack) -> psutil.Process:
    ray = bench.alternative("ray")
    if isinstance(ray, Absent):
        raise Failed(ray.why)
    cluster = stack.enter_context(ray_cluster(bench, ray))
    cluster.submit("true")
    return cluster.process


def _family(parent: psutil.Process) -> list[psutil.Process]:
    return [parent, *parent.children(recursive=True)]


def _used(processes: Sequence[psutil.Process]) -> float:
    """The processor seconds of those that are still there."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _memory(process: psutil.Process) -> tuple[int, int]:
    """The PSS and the RSS of a process, in bytes; where there is no PSS, what is its own (USS)."""
    with contextlib.suppress(psutil.Error):
        told = process.memory_full_info()
        return getattr(told, "pss", told.uss), told.rss
    return 0, 0
