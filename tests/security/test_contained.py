"""A recipe's environment while its container runs: its runtime has to be told, nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import Sandbox
from tests.run.analyses import Analysis, output
from tests.security.users import Stranger
from tests.worker.test_container import _IMAGE, Podman

_CANARY = "canary-of-a-run-b81f"


@pytest.fixture
def alone(sandbox: Sandbox) -> Iterator[Analysis]:
    """An analysis whose recipes can be run by podman, where others can look into its directory."""
    found = Podman(sandbox)
    sandbox.base.chmod(0o755)
    project = Analysis(sandbox)
    project.place = sandbox.scratch / "place"
    sandbox.env |= {"MADE": str(project.place / "made"), "PLACE": str(project.place)}
    project.clear()
    yield project
    project.close()
    found.close()


def test_environment_of_a_container(stranger: Stranger, alone: Analysis) -> None:
    waits = "touch $PLACE/begun; until [ -e $PLACE/go ]; do sleep 0.1; done"
    entry = output("x", f"{waits}; echo ${{{{#CANARY}}}} > {{output}}")
    entry["recipe"]["container"] = _IMAGE
    alone.spec(entry)
    run = alone.begin(env={"CANARY": _CANARY})
    alone.began("begun")
    facts = {"secrets": [_CANARY], "places": [str(alone.box.base)]}
    assert stranger.attack("search", facts) == []
    assert stranger.attack("command_lines", facts) == []
    alone.open("go")
    assert run.wait(timeout=90) == 0
    assert alone.text("x") == f"{len(_CANARY)}\n"
