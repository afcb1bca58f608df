"""Commands that make nothing: an up-to-date run, the state of things, the hooks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import projects
from benchmarks.bench import Bench
from benchmarks.environments import Absent
from benchmarks.samples import Contender, Row, interleave

__all__ = ["nothing_to_do", "status"]

# One level: the older tool takes ten seconds and more for each.
_WIDTHS = (20,)
_CLICK = "import click"
_IMPORT = f'python -c "{_CLICK}"'
_OLDER = "lightcone-cli 0.4.2"


def nothing_to_do(bench: Bench) -> list[Row]:
    """``lc run`` where 20 outputs are up to date."""
    row = Row("nothing", "Nothing to do: 20 outputs, all up to date; the whole command")
    root = _up_to_date(bench, "nothing")
    contenders = [
        _call(bench, _IMPORT, [sys.executable, "-c", _CLICK], root),
        _call(bench, "lc run", [bench.lc, "run"], root),
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
        bench.run(argv, there, env=env)
        contenders.append(
            Contender(_OLDER, lambda: bench.seconds(argv, there, env=env), bench.scale.rounds)
        )
    interleave(row, contenders, bench.scale.many_rounds)
    row.aim("lc run", _IMPORT, 3.0)
    row.aim(_OLDER, "lc run", 15.0, at_least=True)
    return [row]


def status(bench: Bench) -> list[Row]:
    """``lc status``, ``lc session status`` and the hook."""
    row = Row("status", "The state of things: 20 outputs, no session; the whole command")
    root = _up_to_date(bench, "status")
    contenders = [
        _call(bench, _IMPORT, [sys.executable, "-c", _CLICK], root),
        _call(bench, "lc status", [bench.lc, "status"], root),
        _call(bench, "lc session status", [bench.lc, "session", "status"], root),
    ]
    hook = "lc hook session-end"
    told = {
        "session_id": "benchmark",
        "cwd": str(root),
        "hook_event_name": "SessionEnd",
        "reason": "other",
    }
    argv = [bench.lc, "hook", "session-end"]
    if _has_hook(bench, root):
        given = json.dumps(told).encode()
        contenders.append(Contender(hook, lambda: bench.seconds(argv, root, stdin=given)))
    else:
        row.absent[hook] = "this version of lc has no such verb"
    interleave(row, contenders, bench.scale.many_rounds)
    row.aim("lc status", _IMPORT, 3.0)
    row.aim("lc session status", _IMPORT, 2.5)
    row.aim(hook, _IMPORT, 2.0)
    return [row]


def _up_to_date(bench: Bench, name: str) -> Path:
    root = bench.project(name, projects.levels(_WIDTHS))
    bench.run([bench.lc, "run"], root)
    bench.run([bench.lc, "session", "stop"], root)
    return root


def _call(bench: Bench, name: str, argv: list[str], root: Path) -> Contender:
    return Contender(name, lambda: bench.seconds(argv, root))


def _make(bench: Bench, row: Row) -> list[Contender]:
    make = bench.tool("make")
    if isinstance(make, Absent):
        row.absent["make"] = make.why
        return []
    there = bench.place("nothing-make")
    (there / "Makefile").write_text(projects.makefile(sum(_WIDTHS)))
    bench.run([make], there)
    return [_call(bench, "make", [make], there)]


def _has_hook(bench: Bench, root: Path) -> bool:
    asked = subprocess.run(
        [bench.lc, "hook", "--help"],
        cwd=root,
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0
