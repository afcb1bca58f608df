"""The program ``lc``, also run as ``python -m lightcone``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run one call of ``lc``."""
    if sys.argv[1:2] == ["hook"]:
        from lightcone.cli import hook_fast

        # An agent waits for this: it goes without the library that reads command lines.
        if len(sys.argv) == 3 and sys.argv[2] in hook_fast.EVENTS:
            hook_fast.run(sys.argv[2])
            sys.exit(0)
    try:
        from lightcone.cli import main as command_line
    except KeyboardInterrupt:
        sys.exit(130)  # it takes long enough to be interrupted
    command_line.main()


if __name__ == "__main__":
    main()
