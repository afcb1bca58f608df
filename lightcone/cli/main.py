"""The command line ``lc``: its verbs, and the exit codes of errors."""

from __future__ import annotations

import errno
import gc
import importlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem

from lightcone.cli.streams import checked_stream, notify, print_last
from lightcone.errors import ENOUGH, INTERRUPTED, LightconeError, OutputError, SessionError

__all__ = ["Verbs", "cli", "main"]

# By what one wants to do.
_GROUPS = {
    "Make results": {
        "run": "Bring the project's outputs up to date.",
        "wait": "Wait for a detached run, with its exit code.",
        "cancel": "End a detached run.",
        "clean": "Remove the partial work of failed and interrupted recipes.",
    },
    "Look at results": {
        "status": "Show the state of every output, and why.",
        "why": "Show what determines an output, and how it was found.",
        "log": "Show what a recipe printed.",
        "verify": "Recompute the recorded hashes of every result.",
    },
    "The session": {
        "session": "The cluster that stays up between runs.",
        "exec": "Run one command on the cluster.",
    },
    "Set up": {
        "init": "Make a project, or equip the one that is there.",
        "completion": "Let a shell complete lc's words.",
        "doctor": "Check whether this machine is fit for a session.",
        "hook": "What an agent's hooks call.",
    },
}
# Of processes and memory, or of open files.
_LIMITS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
# Where it is not the "command" of the module of its name.
_COMMANDS = {
    "wait": f"{__package__}.detached:wait",
    "cancel": f"{__package__}.detached:cancel",
}
_VERBS = {name: text for verbs in _GROUPS.values() for name, text in verbs.items()}


class Verbs(click.Group):
    """A group of verbs that imports each of them when it is called.

    Most calls come from agents, many a minute: no verb pays for the imports of another.

    Args:
        verbs: the command of each verb, as ``module:name``, in the order of the help text.
    """

    def __init__(self, *, verbs: Mapping[str, str], **more: Any) -> None:
        super().__init__(**more)
        self._verbs = dict(verbs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        module, _, name = self._verbs[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


class _Verbs(Verbs):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _VERBS))
        for title, verbs in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", text) for name, text in verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The usual way would import the modules of all verbs for their descriptions.
        options = click.Command.shell_complete(self, ctx, incomplete)
        return options + [
            CompletionItem(name, help=text)
            for name, text in _VERBS.items()
            if name.startswith(incomplete)
        ]


@click.command(
    cls=_Verbs,
    verbs={name: _COMMANDS.get(name, f"{__package__}.{name}:command") for name in _VERBS},
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all good; 1 a recipe failed, a check did not hold, or what lc prints "
    "could not be written; 2 a mistake in the call, the spec or the settings; 3 the session could "
    "not be started or reached; 4 stopped before everything could be made; 130 interrupted.",
)
@click.version_option(package_name="lightcone", prog_name="lc")
def cli() -> None:
    """Run the analysis declared in astra.yaml on a cluster that stays up between runs."""


def main() -> None:
    """Run ``lc``; turn an error into a message and an exit code."""
    sys.stdout, sys.stderr = checked_stream(sys.stdout), checked_stream(sys.stderr)
    # The exit code of 'exec' is the command's own; as with env(1) and timeout(1), 125 is lc's.
    lc_code = 125 if sys.argv[1:2] == ["exec"] else None
    report: Callable[[], None] | None = None
    try:
        try:
            code = cli.main(prog_name="lc", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        report, code = partial(click.echo, error.format_message()), 2
    except click.ClickException as error:
        report, code = error.show, lc_code or error.exit_code
    except LightconeError as error:
        report, code = partial(notify, str(error)), lc_code or error.exit_code
    except BrokenPipeError:
        code = OutputError.exit_code
    except ImportError as error:
        text = (
            f"A part of what lc needs cannot be imported by {sys.executable} ({error}): look for "
            "PYTHONPATH in the environment, or install lightcone again."
        )
        report, code = partial(notify, text), lc_code or SessionError.exit_code
    except (KeyboardInterrupt, click.Abort):
        report, code = partial(notify, "interrupted"), INTERRUPTED
        # One that came while a string was executed, as dataclasses do, is remembered until the next
        # is, and 'python -m' would end by the signal, whatever the code.
        exec("")  # noqa: S102
    except (OSError, RuntimeError) as error:
        if not _is_limit(error):
            raise
        why = getattr(error, "strerror", None) or error
        report = partial(notify, f"This call cannot go on ({why}): {ENOUGH}.")
        code = lc_code or SessionError.exit_code
    print_last(report)
    # Or everything that was imported would be looked through once more on the way out.
    gc.freeze()
    sys.exit(code if isinstance(code, int) else 0)


def _is_limit(error: OSError | RuntimeError) -> bool:
    """Whether the system refused more memory, processes, threads or files."""
    return getattr(error, "errno", None) in _LIMITS or "start new thread" in str(error)
