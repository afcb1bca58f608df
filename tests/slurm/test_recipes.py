"""Recipes and commands in an allocation: where they run, what they see, what they may start."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.slurm.lab import Lab
from tests.slurm.user import User
from tests.specs import recipe, spec

_TELL = "env > {output}; sleep 0.5"


def _variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_recipes_of_an_allocation(netns_lab: Lab) -> None:
    first, second = netns_lab.nodes
    outputs = [
        recipe("inner", "srun -N2 -n2 hostname > {output}", cpus=4),
        recipe("ranks", "srun -n8 hostname > {output}"),
        # When the others are done, so that nothing but the devices keeps these from each other.
        *(recipe(f"gpu{n}", _TELL, ("inner", "ranks"), cpus=1, gpus=1) for n in range(4)),
    ]
    user = User(netns_lab, "grace", spec(*outputs))
    job = netns_lab.salloc("-N2", "-n8", "--gres=gpu:2", "--mem=2000")
    caller = {"MINE": "of the caller", "SLURM_NTASKS": "8", "TMPDIR": "/nowhere"}
    # On the node that the session is not on, from a step: with a node's own variables.
    user.lc("session", "start", job=job)
    told = {**caller, "SLURMD_NODENAME": second, "SLURM_PROCID": "5", "CUDA_VISIBLE_DEVICES": "7"}
    user.lc("run", job=job, node=second, env=told)
    made = user.made()
    assert sorted(made["inner"].split()) == [first, second]
    ranks = made["ranks"].split()
    assert len(ranks) == 8 and set(ranks) == {first, second}
    devices = set()
    for n in range(4):
        seen = _variables(made[f"gpu{n}"])
        assert seen["MINE"] == caller["MINE"] and seen["SLURM_NTASKS"] == "8"
        assert seen["SLURM_JOB_ID"] == str(job.id) and "SLURM_PROCID" not in seen
        assert seen.get("TMPDIR") != "/nowhere"
        assert seen["SLURM_OVERLAP"] == "1"
        device = seen["CUDA_VISIBLE_DEVICES"]
        # The others name the same device for other makes, where SLURM sets them.
        assert seen["ROCR_VISIBLE_DEVICES"] == seen["GPU_DEVICE_ORDINAL"] == device
        devices.add((seen["SLURMD_NODENAME"], device))
    assert devices == {(node, device) for node in (first, second) for device in "01"}
    ran = user.lc("exec", "--cpus", "4", "--", "srun", "-n8", "hostname", job=job)
    assert set(ran.stdout.split()) == {first, second}
    # From outside the job's environment, with no more than its number.
    plain = _variables(
        user.lc("exec", "--", "env", job=None, env={"SLURM_JOB_ID": str(job.id)}).stdout
    )
    assert plain["SLURM_JOB_ID"] == str(job.id) and plain["SLURM_NNODES"] == "2"
    user.lc("session", "stop", job=job)


def test_gpus_that_differ_between_nodes(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(gpus=2, proctrack="linuxproc")
    user = User(
        lab,
        "mixed",
        spec(
            *(
                recipe(
                    f"g{n}",
                    "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES > {output}; sleep 6",
                    cpus=1,
                    gpus=1,
                )
                for n in range(3)
            )
        ),
    )
    job = lab.salloc("-N2", "-n4", "--ntasks-per-node=2", "--gpus=3", "--mem=1000")
    user.lc("run", job=job)
    assert sorted(worker["gpus"] for worker in user.status(job)["workers"]) == [1, 2]
    # None has waited for another while a device was free elsewhere.
    assert len(set(user.made().values())) == 3
    user.lc("session", "stop", job=job)
    job.has_no_steps()


def test_recipe_goes_where_there_is_room(netns_lab: Lab) -> None:
    wait = "until [ -e go ]; do sleep 0.05; done; hostname > {output}"
    outputs = [recipe(f"wide{n}", wait, cpus=3) for n in range(2)]
    user = User(netns_lab, "room", spec(*outputs))
    job = netns_lab.salloc("-N2", "-n8")
    # One after the other: the first is well under way when the second comes.
    calls = []
    for n in range(2):
        calls.append(user.start("run", f"wide{n}", job=job))
        calls[n].wait_for(f"wide{n}: started")
    (user.project / "go").touch()
    for call in calls:
        call.wait(0)
    assert set(user.made().values()) == set(netns_lab.nodes)
    user.lc("session", "stop", job=job)


def test_many_recipes_on_many_processors(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(nodes=4, cpus=64, memory=64000)
    count = 500
    user = User(
        lab,
        "many",
        spec(
            *(
                recipe(f"o{n}", "echo $SLURMD_NODENAME > {output}; sleep 0.2", cpus=1)
                for n in range(count)
            )
        ),
    )
    job = lab.salloc("-N4", "-n256")
    said = user.lc("run", "-q", "--json", job=job, timeout=110).stdout
    summary = json.loads(said.splitlines()[-1])
    print(summary)
    assert summary["made"] == count
    assert set(user.made().values()) == set(lab.nodes)
    user.lc("session", "stop", job=job)
