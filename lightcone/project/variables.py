"""Names of the environment variables that lc reads or sets."""

from __future__ import annotations

__all__ = [
    "ADDRESS_VARIABLE",
    "LEASE_VARIABLE",
    "OWN_ADDRESS_VARIABLE",
    "RECIPE_VARIABLE",
    "RUN_NAME_VARIABLE",
]

ADDRESS_VARIABLE = "DASK_SCHEDULER_ADDRESS"
"""The address of the cluster that the user wants used instead of a session."""

OWN_ADDRESS_VARIABLE = "LIGHTCONE_SESSION_ADDRESS"
"""The address of a session of ours, in an environment that names it as the cluster."""

LEASE_VARIABLE = "LIGHTCONE_LEASE"
"""The name of the lease under which the shells of a conversation use a session."""

RECIPE_VARIABLE = "LIGHTCONE_RECIPE"
"""The output that a recipe makes, in the recipe's environment."""

RUN_NAME_VARIABLE = "LIGHTCONE_RUN_NAME"
"""The name of a detached run, in the environment of its driver."""
