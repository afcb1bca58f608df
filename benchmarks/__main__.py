"""``python -m benchmarks``: measures, prints the tables, keeps every value."""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
import time
from pathlib import Path

from benchmarks import chart, machine, report
from benchmarks.bench import Bench, Scale
from benchmarks.rows import ROWS
from benchmarks.samples import Failed, Row

_HERE = Path(__file__).resolve().parent
_DOCS = _HERE.parent / "docs"
_SCALES = {
    "trial": Scale(
        name="trial",
        rounds=1,
        many_rounds=1,
        slow_rounds=1,
        recipes=(20,),
        pairs=(1, 10, 100),
        workers=((1, 1), (2, 2)),
        callers=3,
        idle_seconds=1.0,
        ray_jobs=1,
    ),
    "quick": Scale(
        name="quick",
        rounds=5,
        many_rounds=11,
        slow_rounds=1,
        recipes=(1000,),
        pairs=(1, 10, 100, 1000, 5000),
        workers=((1, 1), (4, 1), (4, 4), (4, 16)),
        callers=16,
        idle_seconds=20.0,
        ray_jobs=3,
    ),
    "full": Scale(
        name="full",
        rounds=7,
        many_rounds=21,
        slow_rounds=3,
        recipes=(1000, 10_000),
        pairs=(1, 10, 100, 1000, 5000, 50_000),
        workers=((1, 1), (4, 1), (16, 1), (16, 4)),
        callers=64,
        idle_seconds=60.0,
        ray_jobs=10,
    ),
}


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scale", choices=_SCALES, nargs="?", default="quick")
    parser.add_argument("--only", choices=ROWS, action="append", help="only this row")
    parser.add_argument("--write", action="store_true", help="put it into docs/performance.md")
    asked = parser.parse_args()
    # A polite end cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scale = _SCALES[asked.scale]
    rows: list[Row] = []
    failed: list[str] = []
    loads = [machine.load()]
    begun = time.monotonic()
    bench = Bench(scale)
    about = machine.describe(bench.cores, bench.box.base)
    try:
        for name in asked.only or ROWS:
            bench.say(f"{name} (load {machine.load():.1f})")
            try:
                found = ROWS[name](bench)
            except (Failed, AssertionError) as error:
                failed.append(f"{name}: {error}")
                bench.say(failed[-1])
            else:
                rows += found
                bench.say(report.as_lines(found))
            loads.append(machine.load())
    except KeyboardInterrupt:
        bench.say("interrupted: cleaning up")
        failed.append("the rest: interrupted")
    except BaseException:
        bench.close()
        raise
    minutes = (time.monotonic() - begun) / 60
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    heading = (
        f"Measured on {day} with the {scale.name} set on {about}. "
        f"Load before: {loads[0]:.1f}, meanwhile up to {max(loads):.1f}. "
        f"It took {minutes:.0f} minutes."
    )
    # What ran a minute ago still counts in it.
    if loads[0] > 0.75 * bench.cores:
        heading += (
            "\n\n**The machine was busy with other things: times and rates say little, ratios a "
            "little more. Measure again where nothing else runs.**"
        )
    text = report.as_markdown(rows, heading)
    print(text, flush=True)
    results = _HERE / ".results"
    results.mkdir(exist_ok=True)
    values = report.as_json(rows, day=day, scale=scale.name, machine=about, loads=loads)
    (results / f"{scale.name}.json").write_text(values)
    (results / f"{scale.name}.md").write_text(text)
    try:
        # What was measured is there by now, whatever comes of this.
        bench.close()
    except AssertionError as error:
        failed.append(str(error))
    if asked.write and not failed:
        report.insert(_DOCS / "performance.md", text)
        (_DOCS / "images" / "cost.svg").write_text(chart.draw(rows))
    for line in failed:
        print(f"not measured: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(_main())
