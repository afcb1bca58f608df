"""The program ``lc``, also run as ``python -m lightcone``."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run one call of ``lc``."""
    _use_utf8()
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


def _use_utf8() -> None:
    """Begin this program again in UTF-8 mode, unless its file system encoding is UTF-8.

    The spec is written in UTF-8. In a locale of another encoding Python would write the spec's
    commands and file names in that one, so results would depend on the caller's locale.
    """
    if sys.getfilesystemencoding().lower() != "utf-8":
        program = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execv(program[0], program)  # noqa: S606 (no shell)


if __name__ == "__main__":
    main()
