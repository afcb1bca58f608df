"""``lc completion``, and the completion of output and universe names."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from lightcone.project.context import find_root

__all__ = ["command", "complete_files", "complete_outputs", "complete_universes", "only_universe"]

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help="Let a shell complete lc's words.")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the script by which a shell completes verbs, options, outputs and universes.

    \b
    bash: add to ~/.bashrc             eval "$(lc completion bash)"
    zsh:  add to ~/.zshrc, at its end  eval "$(lc completion zsh)"
    fish: once   lc completion fish > ~/.config/fish/completions/lc.fish
    """
    from lightcone.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(cli, {}, "lc", "_LC_COMPLETE")
    # Not its source(), which runs the shell to ask for its version.
    click.echo(completion.source_template % completion.source_vars())


def complete_outputs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an output, in one universe or in all."""
    typed = ctx.params.get(param.name or "") or ()
    return [name for name in _outputs(ctx, incomplete) if name not in typed]


def complete_universes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a universe."""
    return [name for name in _universes() if name.startswith(incomplete)]


only_universe = click.option(
    "-u",
    "--universe",
    help="Only this universe; all of them without it.",
    shell_complete=complete_universes,
)
"""The option ``--universe`` of a verb that is for the whole project."""


def complete_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Leave completion to the shell's own file names."""
    return [CompletionItem(incomplete, type="file")]


def _outputs(ctx: click.Context, incomplete: str) -> list[str]:
    from lightcone.spec.tree import load_tree

    # The user is typing: the command itself reports what is wrong when it is run.
    with contextlib.suppress(Exception):
        tree = load_tree(find_root(Path.cwd()))
        names = [
            ".".join((*scope, output["id"]))
            for scope, node in tree.nodes.items()
            for output in node["outputs"]
            if output.get("recipe") or output.get("from")
        ]
        if incomplete:
            chosen = ctx.params.get("universe")
            universes = [chosen] if chosen else _universes()
            names += [f"{universe}/{name}" for universe in universes for name in names]
        return [name for name in names if name.startswith(incomplete)]
    return []


def _universes() -> list[str]:
    from lightcone.spec.universes import list_universes

    with contextlib.suppress(Exception):
        return list_universes(find_root(Path.cwd()))
    return []
