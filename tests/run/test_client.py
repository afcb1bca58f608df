"""The line between a run and the cluster, in a program of its own."""

from __future__ import annotations

import socket
from queue import SimpleQueue

from lightcone.wire.protocol import frame, pack
from lightcone.wire.transport import _SessionTransport
from tests.helpers import Sandbox

_LEAVES_WHILE_A_TASK_RUNS = """if True:
    from lightcone.project.context import current_context
    from lightcone.run.client import RunClient
    from lightcone.session.connect import join_cluster

    with join_cluster(current_context(), print) as connection:
        client = RunClient(connection.transport, "test", 10.0)
        with client.open():
            client.submit("time:sleep", 3, client.key("x"), None)
"""


def test_caller_that_leaves_while_a_task_runs_leaves_without_a_word(shared: Sandbox) -> None:
    for _ in range(3):
        told = shared.python("-c", _LEAVES_WHILE_A_TASK_RUNS)
        assert (told.stdout, told.stderr) == ("", "")


_TELLS_WHAT_HAPPENS = """if True:
    import os, signal, sys
    from lightcone.project.context import current_context
    from lightcone.run.client import RunClient
    from lightcone.session.connect import join_cluster

    with join_cluster(current_context(), print) as connection:
        client = RunClient(connection.transport, "test", 10.0)
        with client.open():
            {does}
            print(client.next(20))
            assert not {{"distributed", "tornado", "asyncio"}} & sys.modules.keys()
"""


def _told(sandbox: Sandbox, does: str, *arguments: str) -> str:
    told = sandbox.python("-c", _TELLS_WHAT_HAPPENS.format(does=does), *arguments)
    assert told.stderr == ""
    return told.stdout


def test_session_that_is_lost_is_told_of_once_with_what_it_said(sandbox: Sandbox) -> None:
    sandbox.start()
    scheduler = str(sandbox.programs()["scheduler"])
    lost = _told(sandbox, "os.kill(int(sys.argv[1]), signal.SIGKILL)", scheduler)
    assert lost == "('end', '')\n"
    sandbox.start()
    stop = "import subprocess; subprocess.run([sys.executable, '-m', 'lightcone', *sys.argv[1:]])"
    ended = _told(sandbox, stop, "session", "stop")
    assert ended.splitlines()[-1] == "('end', \"stopped by 'lc session stop'\")"


def test_interrupt_is_heard_at_once_whichever_thread_it_reaches(shared: Sandbox) -> None:
    """Not only when the main thread, which waits for something to happen, goes on."""
    send = "import threading; other = threading.Thread(target=threading.Event().wait, daemon=True)"
    send += "; other.start(); wait = threading.Timer"
    send += "; wait(0.5, signal.pthread_kill, (other.ident, signal.SIGHUP)).start()"
    assert _told(shared, send) == "('interrupt', 1)\n"


def test_task_that_fails_is_told_of_with_its_reason(shared: Sandbox) -> None:
    told = _told(shared, "client.submit('math:sqrt', -1, client.key('x'), None)")
    assert told.startswith("('lost', ('lightcone-")
    assert told.endswith("-x', 'ValueError: math domain error'))\n")


def test_task_that_nothing_has_begun_of_can_be_cancelled(shared: Sandbox) -> None:
    submit = "client.submit('time:sleep', 3, client.key('x'), {'CPU': 1e9})"
    told = _told(shared, f"{submit}; client.cancel([client.key('x')])")
    assert told.endswith("-x', 'its worker was lost'))\n")


def test_much_crosses_in_both_directions(shared: Sandbox) -> None:
    """More than the connection holds, in pieces that are cut anywhere."""
    submit = (
        "[client.submit('builtins:len', b'x' * 300_000, client.key(f'{n}-1'), None)"
        " for n in range(40)]"
    )
    fail = "client.submit('builtins:int', 'y' * 3_000_000, client.key('z'), None)"
    told = _told(shared, f"{submit}; {fail}")
    assert told.startswith("('lost', ")
    assert told.count("y") > 100


def test_last_word_of_a_session_is_heard_though_it_left_what_it_was_told_unread() -> None:
    here, there = socket.socketpair()
    here.send(b"unread")
    there.sendall(frame(pack([{"event": "ended", "reason": "why"}])))
    there.close()
    heard: SimpleQueue[list[dict[str, object]]] = SimpleQueue()
    transport = _SessionTransport(here, b"")
    transport.open("run", {}, heard.put)
    try:
        assert heard.get(timeout=30) == [{"event": "ended", "reason": "why"}]
    finally:
        transport.close()
        here.close()
