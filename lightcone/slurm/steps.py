"""The SLURM steps of a session's workers: starting, finding and cancelling them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightcone.slurm.controller import TIMEOUT, UNKNOWN_JOB, Unknown, run_slurm
from lightcone.slurm.jobs import Job, cancel_by_name
from lightcone.slurm.nodelist import expand_nodes

__all__ = ["Step", "cancel_step", "step_commands", "steps", "worker_steps"]

# Holds the job's number, as a question for the last element of an array is answered for all.
_NAME = "lightcone-{}"


@dataclass(frozen=True)
class Step:
    """A running step of a job.

    Attributes:
        id: as SLURM writes it, ``123.0`` or ``123_4.0``.
        name: its name.
        nodes: the nodes that it is on.
    """

    id: str
    name: str
    nodes: tuple[str, ...]


def step_commands(job: Job, program: Sequence[str], directory: Path) -> list[list[str]]:
    """Build the commands that start ``program`` once on every node.

    The job must have its nodes. Each command runs until its programs have ended, and belongs into
    the environment that :func:`lightcone.slurm.allocation.step_environment` makes. A program has
    its node's whole share of the job, and yet the job's other steps start as if it were not there.
    A program or a node that ends takes no other with it, as far as the job itself outlives its
    node.

    It is one command, save in a job with different numbers of GPUs on its nodes, where no one
    request fits all of them: there it is one for each node.
    """
    options = [f"--jobid={job.id}", f"--job-name={_NAME.format(job.id)}"]
    # Other steps share everything with this one. Neither -c nor --exact: without them it has all
    # the processors of each node, however many. No memory asked for is all that the job has.
    options += ["--overlap", "--ntasks-per-node=1", "--mem=0", "--cpu-bind=none"]
    options += ["--no-kill", "--kill-on-bad-exit=0", "--wait=0"]
    options += ["--mpi=none", "--export=ALL", "--input=none", "--quiet", f"--chdir={directory}"]
    if job.is_heterogeneous:
        options.append("--het-group=0")
    counts = {share.gpus for share in job.shares}
    if len(counts) <= 1:
        gpus = next(iter(counts), 0)
        size = len(job.nodes)
        devices = f"--gres=gpu:{gpus}" if gpus else "--gres=none"
        return [["srun", *options, f"--nodes={size}", f"--ntasks={size}", devices, *program]]
    commands = []
    for share in job.shares:
        # Here --gres=gpu:N would be refused for any N that not every node has.
        devices = f"--gpus={share.gpus}" if share.gpus else "--gres=none"
        place = ["--nodes=1", "--ntasks=1", f"--nodelist={share.node}", devices]
        commands.append(["srun", *options, *place, *program])
    return commands


def steps(job: int, timeout: float = TIMEOUT) -> list[Step] | Unknown:
    """List the running steps of a job."""
    output = run_slurm(["squeue", "-h", "-s", "-j", str(job), "-o", "%i|%N|%j"], timeout)
    if isinstance(output, Unknown):
        return [] if UNKNOWN_JOB in output.why else output
    found = []
    for line in output.splitlines():
        number, _, rest = line.strip().partition("|")
        nodes, _, name = rest.partition("|")
        try:
            found.append(Step(number, name, expand_nodes(nodes)))
        except ValueError as error:
            return Unknown(f"squeue listed the steps of job {job} in an unknown form ({error})")
    return found


def worker_steps(job: int, timeout: float = TIMEOUT) -> list[Step] | Unknown:
    """List the running steps of :func:`step_commands`, orphaned ones included."""
    found = steps(job, timeout)
    if isinstance(found, Unknown):
        return found
    return [step for step in found if step.name == _NAME.format(job)]


def cancel_step(step: Step, timeout: float = TIMEOUT) -> Unknown | None:
    """Cancel a step: TERM to its processes, KILL after the site's grace.

    An ended step is no error.
    """
    return cancel_by_name(step.id, timeout)
