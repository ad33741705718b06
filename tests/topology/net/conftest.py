import contextlib
import os

import pytest

from lbfwd.demo.lab import Lab
from tests.topology.net.resolver import Resolver


@pytest.fixture
def lab():
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with Lab() as lab:
        yield lab


@pytest.fixture
def stack():
    """Closes what a test opens."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def two_links(lab):
    """A node and a peer joined by two cables: test_resolve.py draws them."""
    node, peer = lab.host("node"), lab.host("peer")
    for i in (0, 1):
        lab.link(
            node,
            f"e{i}",
            [f"10.0.{i}.1/24", f"fd0{i}::1/64"],
            peer,
            f"p{i}",
            [f"10.0.{i}.2/24", f"fd0{i}::2/64", "fe80::2/64"],
        )
    return node, peer


@pytest.fixture
def resolver(two_links):
    resolver = Resolver(two_links[0])
    yield resolver
    resolver.close()
