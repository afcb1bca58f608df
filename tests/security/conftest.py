"""Users after each other's sessions; only root can be several."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers import clean_environment
from tests.security.users import Stranger, as_user, spare_user


@pytest.fixture(scope="session")
def stranger() -> Iterator[Stranger]:
    """An unprivileged user who has nothing to do with any session."""
    if os.getuid() != 0:
        pytest.skip("only root can run programs as a second user")
    user = Stranger(spare_user(1))
    try:
        yield user
    finally:
        user.close()


@pytest.fixture(scope="session")
def unprivileged(stranger: Stranger) -> int:
    """The id of another unprivileged user, who can run this Python."""
    uid = spare_user()
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", "import distributed, lightcone"],
            cwd="/",
            env=clean_environment(),
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=True,
            **as_user(uid),
        )
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("users other than root cannot run this Python or read this checkout")
    return uid
