"""``lc exec``."""

from __future__ import annotations

import click

from lightcone.analysis.output import Resources
from lightcone.cli.completion import complete_files
from lightcone.cli.say import say
from lightcone.context import here
from lightcone.units import parse_bytes

__all__ = ["command"]


class _Size(click.ParamType[int]):
    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("exec", short_help="Run one command on the cluster.")
@click.option("--cpus", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Default 1.")
@click.option("--memory", type=_Size(), default=0, help="For example 4Gi.")
@click.option("--gpus", type=click.IntRange(min=0), default=0, help="Default none.")
@click.argument(
    "argv",
    nargs=-1,
    required=True,
    metavar="-- COMMAND...",
    type=click.UNPROCESSED,
    shell_complete=complete_files,
)
def command(cpus: float, memory: int, gpus: int, argv: tuple[str, ...]) -> int:
    """Run one command on the cluster, ahead of queued recipes.

    It sees this shell's environment, directory and umask; its output comes here as it is printed,
    and its exit code is this command's, 128 + N where signal N ended it, 125 where lc failed.
    """
    from lightcone.session.connection import join

    context = here()
    with join(context, say) as connection:
        from lightcone.run.exec import run_command

        return run_command(context, connection, argv, Resources(cpus, memory, gpus))
