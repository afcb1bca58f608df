"""``python -m lightcone`` is ``lc``."""

from __future__ import annotations

from lightcone.cli.main import main

main()
