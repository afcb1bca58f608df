"""Commands that make nothing: an up-to-date run, the state of things, the hooks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.environments import Absent
from benchmarks.samples import Contender, Failed, Row, interleave
from tests.helpers import wait_until

__all__ = ["nothing_to_do", "status"]

# One level: the older tool takes ten seconds and more for each.
_WIDTHS = (20,)
_CLICK = "import click"
_IMPORT = f'python -c "{_CLICK}"'
_OLDER = "lightcone-cli 0.4.2"
_PLUGIN = Path(__file__).resolve().parents[2] / "hooks" / "hooks.json"


def nothing_to_do(bench: Bench) -> list[Row]:
    """``lc run`` where 20 outputs are up to date."""
    row = Row("nothing", "Nothing to do: 20 outputs, all up to date; the whole command")
    root = _up_to_date(bench, "nothing")
    contenders = [
        _call(bench, _IMPORT, [sys.executable, "-c", _CLICK], root),
        _call(bench, "lc run", [bench.lc, "run"], root, ours=True),
    ]
    contenders += _make(bench, row)
    older = bench.alternative("older")
    if isinstance(older, Absent):
        row.absent[_OLDER] = older.why
    else:
        there = bench.place("nothing-older")
        (there / "astra.yaml").write_text(projects.levels(_WIDTHS))
        bench.say("the older tool makes the 20 outputs once")
        argv, env = [str(older.programs / "lc"), "run"], bench.environment(older)
        try:
            bench.run(argv, there, env=env)
        except Failed as error:
            row.drop(_OLDER, error)
        contenders.append(
            Contender(_OLDER, lambda: bench.seconds(argv, there, env=env), bench.scale.rounds)
        )
    interleave(row, contenders, bench.scale.many_rounds)
    row.aim("lc run", _IMPORT, 3.0)
    row.aim(_OLDER, "lc run", 15.0, at_least=True)
    return [row]


def status(bench: Bench) -> list[Row]:
    """``lc status``, ``lc session status`` and the hooks, as an agent calls them."""
    row = Row("status", "The state of things: 20 outputs, no session; the whole command")
    root = _up_to_date(bench, "status")
    contenders = [
        _call(bench, _IMPORT, [sys.executable, "-c", _CLICK], root),
        _call(bench, "lc status", [bench.lc, "status"], root, ours=True),
        _call(bench, "lc session status", [bench.lc, "session", "status"], root, ours=True),
    ]
    bench.run([bench.lc, "init"], root)
    hooks = {
        "lc hook session-end": [bench.lc, "hook", "session-end"],
        "the hook that lc init writes": _hook(root / ".claude" / "settings.json"),
        "the plugin's hook": _hook(_PLUGIN),
    }
    contenders += [_hook_call(bench, name, argv, root) for name, argv in hooks.items()]
    interleave(row, contenders, bench.scale.many_rounds)
    row.aim("lc status", _IMPORT, 3.0)
    row.aim("lc session status", _IMPORT, 2.5)
    for name in hooks:
        row.aim(name, _IMPORT, 2.0)
    row.notes.append(
        "The last two are what the files say, run by a shell as an agent does; what a hook leaves "
        "to a process of its own goes on after its end, and is waited for before the next."
    )
    return [row]


def _up_to_date(bench: Bench, name: str) -> Path:
    root = bench.project(name, projects.levels(_WIDTHS))
    bench.run([bench.lc, "run"], root)
    bench.run([bench.lc, "session", "stop"], root)
    return root


def _call(bench: Bench, name: str, argv: list[str], root: Path, *, ours: bool = False) -> Contender:
    return Contender(name, lambda: bench.seconds(argv, root), ours=ours)


def _hook(file: Path) -> list[str]:
    """The command of the only hook that a settings file has for the end of a conversation."""
    (group,) = json.loads(file.read_bytes())["hooks"]["SessionEnd"]
    (hook,) = group["hooks"]
    if "args" in hook:
        return [hook["command"], *hook["args"]]
    return ["/bin/sh", "-c", hook["command"]]


def _hook_call(bench: Bench, name: str, argv: list[str], root: Path) -> Contender:
    told = {
        "session_id": "benchmark",
        "cwd": str(root),
        "hook_event_name": "SessionEnd",
        "reason": "other",
    }
    env = bench.environment()
    programs = (str(Path(bench.lc).parent), env.get("PATH", os.defpath))
    env |= {"PATH": os.pathsep.join(programs), "CLAUDE_PLUGIN_ROOT": str(_PLUGIN.parent.parent)}
    given = json.dumps(told).encode()

    def call() -> float:
        seconds = bench.seconds(argv, root, env=env, stdin=given)
        wait_until(lambda: not bench.box.processes(), "what the hook has started is gone")
        return seconds

    return Contender(name, call, ours=True)


def _make(bench: Bench, row: Row) -> list[Contender]:
    make = bench.tool("make")
    if isinstance(make, Absent):
        row.absent["make"] = make.why
        return []
    there = bench.place("nothing-make")
    (there / "Makefile").write_text(projects.makefile(sum(_WIDTHS)))
    bench.run([make, "-s"], there)
    return [_call(bench, "make", [make], there)]
