"""Real clients and servers through a real node: nginx, curl, iperf3, UDP with segmentation offload.

The network is the demo's: client ── router ── node, and three backends behind the router that
answer the client directly. Offloads are on, as veth has them.
"""

import json
import os
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Lab
from lbfwd.demo.topology import PLACES, VIPS
from tests.topology.node.site import UPLOAD_BYTES, Site, url
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

UDP_SEGMENT = 103
DATAGRAM = 1200
DATAGRAMS = 20


@pytest.fixture(scope="module", params=["v3", pytest.param("v2", marks=pytest.mark.slow)])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with Lab() as lab:
        yield Site(lab, directory, flags=["--ring", request.param])


@pytest.mark.parametrize("family", [4, 6])
def test_requests_are_balanced_over_all_backends(site: Site, family: int) -> None:
    before = site.node.status()
    names = Counter(site.curl(url(family, "/name")) for _ in range(60))
    after = site.node.status()
    assert names.total() == 60
    assert set(names) == {place.name for place in PLACES}
    assert after["drops"] == before["drops"]
    seen = [a["seen"] - b["seen"] for a, b in zip(after["workers"], before["workers"], strict=True)]
    assert all(seen), "both workers carry load"


@pytest.mark.parametrize("family", [4, 6])
def test_upload_with_all_offloads_arrives_byte_for_byte(
    site: Site, family: int, tmp_path: Path
) -> None:
    before = site.node.status()
    site.upload(family, tmp_path, f"upload{family}")
    after = site.node.status()
    frames, packets = (
        sum(worker[key] for worker in after["workers"])
        - sum(worker[key] for worker in before["workers"])
        for key in ("frames", "seen")
    )
    assert packets > 2 * frames, "super-frames came and were segmented"
    assert after["drops"] == before["drops"]


@pytest.mark.parametrize("family", [4, 6])
def test_download_goes_straight_back(site: Site, family: int, tmp_path: Path) -> None:
    data = os.urandom(UPLOAD_BYTES)
    for backend in site.backends.values():
        (backend.root / "files" / "download").write_bytes(data)
    before = site.node.forwarded_bytes()
    site.curl("-o", str(tmp_path / "got"), url(family, "/download"))
    assert (tmp_path / "got").read_bytes() == data
    assert site.node.forwarded_bytes() - before < UPLOAD_BYTES / 10, "only acknowledgements"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_iperf3(site: Site, family: int, reverse: bool) -> None:
    command = ["iperf3", "-c", VIPS[family], "-n", "20M", "-J", *(["-R"] if reverse else [])]
    before = site.node.status()["drops"]
    result = json.loads(site.network.client.run(*command))
    # The receiver stops counting when the sender says that it is done, some packets early.
    assert result["end"]["sum_sent"]["bytes"] >= 20_000_000
    assert result["end"]["sum_received"]["bytes"] >= 10_000_000
    assert site.node.status()["drops"] == before


@pytest.mark.parametrize("family", [4, 6])
def test_udp_segmentation_offload(site: Site, family: int) -> None:
    """A burst of one datagram by name, many by content: UDP_SEGMENT (udp(7))."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6

    def receiver() -> socket.socket:
        sock = socket.socket(kind, socket.SOCK_DGRAM)
        sock.bind((VIPS[family], 4000))
        sock.settimeout(0.5)
        return sock

    receivers = [inside(host, receiver) for host in site.network.backends.values()]
    sender = inside(site.network.client, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    before = site.node.status()
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM)
    data = os.urandom(DATAGRAM * DATAGRAMS - 100)
    sender.sendto(data, (VIPS[family], 4000))
    got = [_all(sock) for sock in receivers]
    for sock in (*receivers, sender):
        sock.close()
    assert sorted(map(len, got)) == [0, 0, DATAGRAMS], "one flow, one backend"
    arrived = next(datagrams for datagrams in got if datagrams)
    assert b"".join(arrived) == data
    after = site.node.status()
    assert (
        sum(w["frames"] for w in after["workers"]) - sum(w["frames"] for w in before["workers"])
        == 1
    )


def _all(sock: socket.socket) -> list[bytes]:
    got = []
    while True:
        try:
            got.append(sock.recv(65536))
        except TimeoutError:
            return got
