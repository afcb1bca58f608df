"""``lc exec``."""

from __future__ import annotations

import click

from lightcone.cli.completion import complete_files
from lightcone.cli.streams import notify
from lightcone.project.context import current_context
from lightcone.spec.output import Resources
from lightcone.system.units import parse_bytes

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
    from lightcone.session.connect import join_cluster

    context = current_context()
    with join_cluster(context, notify) as connection:
        from lightcone.run.exec import run_command

        return run_command(context, connection, argv, Resources(cpus, memory, gpus))
