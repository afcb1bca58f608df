"""A table of known computing sites."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SITES", "LoginLimits", "Site", "current_site", "site_scratch"]


@dataclass(frozen=True)
class LoginLimits:
    """Limits of one recipe on a site's shared login nodes.

    Attributes:
        cpus: processors.
        memory: bytes.
        seconds: its ``time_limit``, where it declares one.
    """

    cpus: float
    memory: int
    seconds: float


@dataclass(frozen=True)
class Site:
    """One computing site.

    Attributes:
        name: its name for people.
        marker: an environment variable that every shell there has, and no shell elsewhere.
        scratch: the variable that names the user's directory on a file system which all nodes
            share and whose locks work between them.
        login: the limits on its login nodes; None where they are as any other host.
    """

    name: str
    marker: str
    scratch: str
    login: LoginLimits | None


SITES = (
    # Home and CFS have no locks on compute nodes; $SCRATCH (Lustre) has. The policy on login nodes
    # asks for no more than "make -j 8" and short interactive work.
    Site("NERSC", "NERSC_HOST", "SCRATCH", LoginLimits(8, 16 << 30, 3600.0)),
)


def current_site(environ: Mapping[str, str] | None = None) -> Site | None:
    """Return the site of this host, as far as the environment shows."""
    environ = os.environ if environ is None else environ
    return next((site for site in SITES if environ.get(site.marker)), None)


def site_scratch(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the site's scratch directory for this user, if it has one."""
    environ = os.environ if environ is None else environ
    site = current_site(environ)
    named = environ.get(site.scratch) if site is not None else None
    return Path(named) if named else None
