"""What a VIP answers, and who: echo by mode, a service without a usable backend."""

import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from lbfwd.demo.lab import Host, Lab
from lbfwd.demo.topology import VIPS
from tests.topology.node.site import CONFIG, Site, url
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

PINGS = 5
REFUSED = 7  # curl: "Failed to connect to host"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Lab() as lab:
        yield Site(lab, tmp_path_factory.mktemp("answers"))


def reload(site: Site, config: str) -> None:
    done = site.node.reload(config)
    assert done.returncode == 0, done.stderr


def with_echo(mode: str) -> str:
    return CONFIG.replace("[node]", f'[node]\necho = "{mode}"')


def answered(site: Site, family: int) -> int:
    """How many pings come back."""
    command = ["ping", "-c", str(PINGS), "-i", "0.2", "-W", "1", VIPS[family]]
    output = site.network.client.run(*command, check=False)
    found = re.search(r"(\d+) received", output)
    assert found, output
    assert "DUP" not in output
    return int(found[1])


def echoes(host: Host, family: int) -> int:
    """Echo requests that the host's own stack has got."""
    name = {4: "IcmpInEchos", 6: "Icmp6InEchos"}[family]
    return int(host.run("nstat", "-asz", name).split()[-2])


def growth(site: Site, family: int, mode: str) -> tuple[int, int, dict[str, int]]:
    """Ping; returns answers, echo requests that reached backends, and drops."""
    reload(site, with_echo(mode))
    backends = site.network.backends.values()
    before, reached = site.node.status()["drops"], sum(echoes(b, family) for b in backends)
    answers = answered(site, family)
    after = site.node.status()["drops"]
    grown = {reason: after[reason] - before[reason] for reason in after}
    more = sum(echoes(b, family) for b in backends) - reached
    return answers, more, {reason: count for reason, count in grown.items() if count}


@pytest.mark.parametrize("family", [4, 6])
def test_the_node_replies(site: Site, family: int) -> None:
    assert growth(site, family, "reply") == (PINGS, 0, {"echo_answered": PINGS})


@pytest.mark.parametrize("family", [4, 6])
def test_a_backend_replies(site: Site, family: int) -> None:
    assert growth(site, family, "backend") == (PINGS, PINGS, {})


@pytest.mark.parametrize("family", [4, 6])
def test_nobody_replies(site: Site, family: int) -> None:
    assert growth(site, family, "drop") == (0, 0, {"echo_refused": PINGS})


@pytest.mark.parametrize("family", [pytest.param(4, marks=pytest.mark.slow), 6])
def test_a_flood_of_pings_is_answered_at_a_bounded_rate(site: Site, family: int) -> None:
    reload(site, with_echo("reply"))
    before = site.node.status()["drops"]
    command = ["ping", "-q", "-f", "-c", "3000", "-W", "1", VIPS[family]]
    began = time.monotonic()
    output = site.network.client.run(*command, check=False)
    took_s = time.monotonic() - began
    after = site.node.status()["drops"]
    replies = after["echo_answered"] - before["echo_answered"]
    refused = after["rate_limited"] - before["rate_limited"]
    assert replies + refused == 3000
    assert f" {replies} received" in output
    assert replies <= 1000 * (took_s + 1) + 100  # one flow, so one worker: _worker.h
    assert replies >= PINGS


def without_backends(empty: str) -> str:
    config = re.sub(r"(address = \"[^\"]*\")", r"\1, weight = 0", CONFIG)
    return re.sub(r"(protocol = )", rf'empty = "{empty}"\n\1', config)


@pytest.mark.parametrize("family", [4, 6])
def test_an_empty_service_rejects_tcp_at_once(site: Site, family: int) -> None:
    reload(site, without_backends("reject"))
    before = site.node.status()
    argv = ["curl", "-sSv", "--max-time", "20", url(family, "/name")]
    began = time.monotonic()
    done = subprocess.run(
        site.network.client.argv(argv), capture_output=True, text=True, check=False
    )
    assert time.monotonic() - began < 1.0, "before the SYN would be repeated"
    assert done.returncode == REFUSED
    assert "Connection refused" in done.stderr
    after = site.node.status()
    assert after["events"]["reset_sent"] == before["events"]["reset_sent"] + 1
    assert after["drops"]["rejected"] == before["drops"]["rejected"] + 1


@pytest.mark.parametrize("family", [4, 6])
def test_an_empty_service_rejects_udp_at_once(site: Site, family: int) -> None:
    reload(site, without_backends("reject"))
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    before = site.node.status()["events"]["unreachable_sent"]
    with inside(site.network.client, lambda: socket.socket(kind, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(5)
        sock.connect((VIPS[family], 4000))
        sock.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)
    assert site.node.status()["events"]["unreachable_sent"] == before + 1


@pytest.mark.parametrize("family", [4, 6])
def test_an_empty_service_that_drops_says_nothing(site: Site, family: int) -> None:
    reload(site, without_backends("drop"))
    before = site.node.status()["drops"]["no_backend"]
    argv = ["curl", "-sS", "--max-time", "1", url(family, "/name")]
    with pytest.raises(Exception, match="exit 28"):  # curl: timed out
        site.network.client.run(*argv)
    assert site.node.status()["drops"]["no_backend"] > before
    reload(site, CONFIG)
    assert site.curl(url(family, "/name")) in site.backends
