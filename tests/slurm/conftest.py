"""Clusters: one for the tests of a module, one whose nodes are hosts, and ones made to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.needs import do_without
from tests.slurm.lab import Lab
from tests.slurm.place import missing


def _need(network: bool = False) -> None:
    why = missing(network)
    if why:
        do_without(why)


@pytest.fixture(scope="module")
def _module_lab() -> Iterator[Lab]:
    _need()
    lab = Lab(gpus=2)
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def lab(_module_lab: Lab) -> Iterator[Lab]:
    """Two nodes of 4 processors, 8000 MiB and 2 GPUs; a test that leaves anything on them fails."""
    try:
        yield _module_lab
    finally:
        _module_lab.clear()


@pytest.fixture(scope="module")
def _module_netns_lab() -> Iterator[Lab]:
    _need(network=True)
    lab = Lab(gpus=2, netns=True)
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def netns_lab(_module_netns_lab: Lab) -> Iterator[Lab]:
    """The same with an address, a name, a boot id and a local disk for each node; takes root."""
    try:
        yield _module_netns_lab
    finally:
        _module_netns_lab.clear()


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Makes a lab as :class:`Lab` is told to; it ends with the test."""
    labs: list[Lab] = []

    def make(**shape: Any) -> Lab:
        _need(network=bool(shape.get("netns")))
        labs.append(Lab(**shape))
        return labs[-1]

    try:
        yield make
    finally:
        for lab in labs:
            lab.close()
