"""``lc session release``."""

from __future__ import annotations

import os

import click

from lightcone.errors import UsageError
from lightcone.hook import LEASE_VARIABLE
from lightcone.session.lease import check, own
from lightcone.session.lease import release as release_lease

__all__ = ["command"]


@click.command("release")
@click.argument("lease", required=False)
def command(lease: str | None) -> None:
    """Give up a LEASE (default: this shell's), in all sessions of yours on this host.

    A session whose last lease is given up ends, unless somebody still uses it.
    """
    name = own() if lease is None else check(lease)
    if name is None:
        raise UsageError(
            f"No lease is named: write 'lc session release NAME', or set {LEASE_VARIABLE}."
        )
    release_lease(name, os.getcwd())
