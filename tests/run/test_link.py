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
