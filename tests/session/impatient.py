"""Calls of ``lc`` that wait for less long than people are asked to."""

from __future__ import annotations

__all__ = ["IMPATIENT"]

# The first argument is the seconds.
IMPATIENT = """\
import sys
from lightcone.cli.main import main
from lightcone.session import liveness, spawn_lock, start, stop
seconds = start.LEFTOVER_DEADLINE = stop.LEFTOVER_DEADLINE = float(sys.argv.pop(1))
for module in (liveness, spawn_lock, start):
    module.START_DEADLINE = seconds
main()
"""
