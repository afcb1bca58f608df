"""The line between a run and the cluster, in a program of its own."""

from __future__ import annotations

from tests.helpers import Sandbox

_LEAVES_WHILE_A_TASK_RUNS = """if True:
    import time
    from lightcone.context import here
    from lightcone.run.link import Link
    from lightcone.session.client import join

    with join(here(), print) as connection:
        link = Link(connection, "test")
        with link.open():
            future = link.submit(time.sleep, 3, link.key("x"), None)
"""


def test_caller_that_leaves_while_a_task_runs_leaves_without_a_word(shared: Sandbox) -> None:
    for _ in range(3):
        told = shared.python("-c", _LEAVES_WHILE_A_TASK_RUNS)
        assert (told.stdout, told.stderr) == ("", "")


_LOSES_THE_SCHEDULER_FIRST = """if True:
    import os, signal, sys
    from lightcone.context import here
    from lightcone.errors import SessionError
    from lightcone.run.link import Link
    from lightcone.session.client import join

    with join(here(), print) as connection:
        os.kill(int(sys.argv[1]), signal.SIGKILL)
        try:
            with Link(connection, "test").open():
                print("opened")
        except SessionError as error:
            print(error)
"""


def test_cluster_that_is_lost_before_it_is_used_is_told_of(sandbox: Sandbox) -> None:
    sandbox.start()
    scheduler = str(sandbox.programs()["scheduler"])
    told = sandbox.python("-c", _LOSES_THE_SCHEDULER_FIRST, scheduler)
    assert (told.stdout, told.stderr) == (
        "The cluster was lost as it was about to be used: run again.\n",
        "",
    )
