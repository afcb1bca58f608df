"""Calls of ``lc`` that wait for less long than people are asked to."""

from __future__ import annotations

__all__ = ["IMPATIENT"]

# The first argument is the seconds.
IMPATIENT = """\
import sys
from lightcone.cli.main import main
from lightcone.session import ending, liveness, readiness, spawn_lock, starting
seconds = ending.LEFTOVER_DEADLINE = float(sys.argv.pop(1))
for module in (liveness, readiness, spawn_lock, starting):
    module.START_DEADLINE = seconds
main()
"""
