"""One of the engine's own programs: ``python -m lightcone.cluster.program MODULE ARGUMENTS``.

As ``python -m MODULE ARGUMENTS``, but for the garbage collector, which would take a tenth of the
time that the engine is imported in.
"""

from __future__ import annotations

import importlib
import sys

from lightcone.garbage import no_garbage

__all__ = ["main"]


def main() -> None:
    """Run the program that the arguments name."""
    del sys.argv[0]
    with no_garbage():
        program = importlib.import_module(sys.argv[0])
    program.main()


if __name__ == "__main__":
    main()
