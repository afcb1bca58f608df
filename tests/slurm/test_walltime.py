"""An allocation's time: what does not fit is left, what runs is interrupted, the next goes on."""

from __future__ import annotations

import json
from functools import partial

from tests.helpers import wait_until
from tests.slurm.lab import Lab
from tests.slurm.user import User
from tests.specs import recipe, spec

# Counts to 200, from where it was when it was asked to end.
_COUNT = (
    "n=$(cat {output} 2> /dev/null || echo 0); echo from $n; "
    "trap 'echo $n > {output}; echo checkpoint; exit 9' TERM; "
    "while [ $n -lt 200 ]; do n=$((n + 1)); sleep 0.1; done; echo $n > {output}"
)
_OUTPUTS = spec(
    recipe("quick", "hostname > {output}"),
    recipe("count", _COUNT, cpus=1),
    recipe("limited", "hostname > {output}", time_limit="2h"),
)


def test_what_does_not_fit_and_the_job_that_goes_on(netns_lab: Lab) -> None:
    user = User(netns_lab, "time", _OUTPUTS)
    (user.project / "lightcone.toml").write_text("[run]\ngrace = 1\n")
    job = netns_lab.salloc("-N2", "-n8")
    user.lc("session", "start", job=job)
    netns_lab.run("scontrol", "update", f"JobId={job.id}", "EndTime=now+15")
    said = user.lc("run", job=job, check=4).stdout
    assert "baseline/limited: left: its time_limit is 2 h, and the allocation has" in said
    assert "baseline/quick: made" in said
    assert "the allocation is about to end: asking the recipes to end" in said
    assert "baseline/count | checkpoint" in said and "baseline/count: interrupted" in said
    last = said.splitlines()[-1]
    assert "1 made, 1 interrupted, 1 left" in last
    assert last.endswith("run again with --resume in another allocation")
    outputs = json.loads(user.lc("status", "--json", job=job).stdout)
    states = {each["id"]: each["state"] for each in outputs["outputs"]}
    assert states["count"] == "interrupted" and states["limited"] == "missing"
    job.cancel()

    # Job after job with one script; the first of these is ended while its recipe runs.
    script = f"trap : TERM\n{user.script('run', '--resume')}\necho code $?"
    (user.project / "astra.yaml").write_text(_OUTPUTS.replace("2h", "1m"))
    first = netns_lab.sbatch(script, "-N2", "-n4", "-t10")
    wait_until(lambda: "count | from " in netns_lab.output(first), "it goes on", 60.0)
    second = netns_lab.sbatch(script, "-N1", "-n1", "-t10", f"--dependency=afterany:{first.id}")
    first.cancel()
    for each in (first, second):
        wait_until(partial(_has_left, netns_lab, each.id), "the script has ended", 90.0)
    assert "count | checkpoint" in netns_lab.output(first)
    assert "code 4" in netns_lab.output(first)
    assert "code 0" in netns_lab.output(second)
    starts = [
        int(line.split()[-1])
        for text in map(netns_lab.output, (first, second))
        for line in text.splitlines()
        if "| from" in line
    ]
    assert 0 < starts[0] < starts[1]
    assert user.made()["count"] == "200"


def _has_left(lab: Lab, job: int) -> bool:
    return not lab.run("squeue", "-h", "-j", str(job), check=None).stdout.strip()
