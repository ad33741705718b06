"""One site for all tests of the tunnel; each test has a Tunnel of its own."""

from collections.abc import Iterator

import pytest

from lbfwd.demo.lab import Lab
from lbfwd.demo.topology import PLACES, Network, build
from tests.topology.health.tunnel_site import Asker, Backend


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with Lab() as lab:
        network = build(lab)
        # A new namespace takes over the machine's rp_filter.
        network.node.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__eth0__rp_filter=0)
        yield network


@pytest.fixture(scope="package")
def backends(network: Network, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backend]:
    directory = tmp_path_factory.mktemp("tunnel")
    for parent in (directory, directory.parent):
        parent.chmod(0o755)
    found = {p.name: Backend(network.backends[p.name], p, directory) for p in PLACES}
    for backend in found.values():
        backend.serve()
    return found


@pytest.fixture
def asker(network: Network, backends: dict[str, Backend]) -> Iterator[Asker]:
    asker = Asker(network.node)
    try:
        yield asker.start()
    finally:
        asker.close()
