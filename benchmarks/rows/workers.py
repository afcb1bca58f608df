"""More and more workers in an allocation, with as much more work."""

from __future__ import annotations

import json
import shutil

from benchmarks.bench import Bench
from benchmarks.samples import Contender, Failed, Row, interleave
from tests.slurm.lab import Lab
from tests.slurm.place import missing
from tests.slurm.user import User
from tests.specs import recipe, spec

__all__ = ["EACH", "workers"]

EACH = 5
"""How many recipes of a second each processor is given."""

# What a node says it has is believed: recipes that sleep take neither processor nor memory.
_MEMORY = 64_000


def workers(bench: Bench) -> list[Row]:
    """Recipes that sleep, on nodes of a stand-in SLURM: five for each claimed processor."""
    row = Row(
        "workers",
        f"1 to {max(nodes * cpus for nodes, cpus in bench.scale.workers)} workers: {EACH} recipes "
        "of 'sleep 1' for each, live session in an allocation; the whole command",
    )
    why = missing()
    if why:
        return [_absent(row, why)]
    try:
        lab = Lab(
            nodes=max(nodes for nodes, _ in bench.scale.workers),
            cpus=max(cpus for _, cpus in bench.scale.workers),
            memory=_MEMORY,
            proctrack="linuxproc",
        )
    except (AssertionError, OSError) as error:
        return [_absent(row, f"SLURM does not start here: {error}")]
    try:
        for nodes, cpus in bench.scale.workers:
            _measure(bench, row, lab, nodes, cpus)
    finally:
        try:
            lab.close()
        except AssertionError as error:
            raise Failed(str(error)) from error
    row.notes.append(
        f"{EACH} s is what the recipes take. Each worker stands for one claimed processor; those "
        "of a node share a process. Nodes, scheduler and recipes share this machine."
    )
    return [row]


def _absent(row: Row, why: str) -> Row:
    row.drop("lc run", why)
    return row


def _measure(bench: Bench, row: Row, lab: Lab, nodes: int, cpus: int) -> None:
    count = nodes * cpus
    outputs = [
        recipe(f"o{number}", "sleep 1; echo x > {output}", cpus=1) for number in range(EACH * count)
    ]
    user = User(lab, f"bench-{count}", spec(*outputs))
    job = lab.salloc(f"-N{nodes}", f"-n{count}", f"--ntasks-per-node={cpus}")
    env = user.variables(job)
    bench.say(f"{count} workers on {nodes} nodes")
    bench.run([bench.lc, "session", "start"], user.project, env=env)
    told = json.loads(user.lc("session", "status", "--json", job=job).stdout)
    if sum(worker["cpus"] for worker in told["workers"]) != count:
        raise Failed(f"{count} workers were asked for, and there are {told['workers']}")

    def lc() -> float:
        shutil.rmtree(user.project / "results", ignore_errors=True)
        return bench.seconds([bench.lc, "run", "--quiet"], user.project, env=env)

    name = f"{count} worker{'' if count == 1 else 's'}, {nodes} node{'' if nodes == 1 else 's'}"
    try:
        interleave(row, [Contender(name, lc, ours=True)], bench.scale.slow_rounds)
    finally:
        bench.run([bench.lc, "session", "stop"], user.project, env=env)
        lab.clear()
