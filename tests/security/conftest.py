"""Users after each other's sessions; only root can be several."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.needs import do_without
from tests.security.interpreter import Interpreter, for_all
from tests.security.users import Stranger, User, spare_user


@pytest.fixture(scope="session")
def stranger() -> Iterator[Stranger]:
    """An unprivileged user who has nothing to do with any session."""
    if os.getuid() != 0:
        do_without("only root can run programs as a second user")
    user = Stranger(spare_user(1))
    try:
        yield user
    finally:
        user.close()


@pytest.fixture(scope="session")
def unprivileged(stranger: Stranger) -> Iterator[User]:
    """Another unprivileged user, who can run this Python: where it lies, or shown elsewhere."""
    uid = spare_user()
    mine = Interpreter()
    if not mine.refusal(uid):
        yield User(uid, mine)
        return
    with for_all() as python:
        why = python.refusal(uid)
        if why:
            do_without(f"other users cannot run {python.program}, made for them: {why}")
        yield User(uid, python)
