"""Users after each other's sessions; only root can be several."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.needs import do_without
from tests.security.interpreter import Interpreter, for_all
from tests.security.users import Stranger, User, spare_user


@pytest.fixture(scope="session")
def python() -> Iterator[Interpreter]:
    """This Python as other users can run it: where it lies, or shown to them elsewhere."""
    if os.getuid() != 0:
        do_without("only root can run programs as a second user")
    uid = spare_user()
    mine = Interpreter()
    if not mine.refusal(uid):
        yield mine
        return
    with for_all() as shown:
        why = shown.refusal(uid)
        if why:
            do_without(f"other users cannot run this Python, though it is shown to them: {why}")
        yield shown


@pytest.fixture(scope="session")
def stranger(python: Interpreter) -> Iterator[Stranger]:
    """An unprivileged user who has nothing to do with any session."""
    user = Stranger(User(spare_user(1), python))
    try:
        yield user
    finally:
        user.close()


@pytest.fixture(scope="session")
def unprivileged(python: Interpreter) -> User:
    """Another unprivileged user, who has sessions."""
    return User(spare_user(), python)
