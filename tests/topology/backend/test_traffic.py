"""Real requests through GRE to a real backend, and straight back."""

import hashlib
import re
import subprocess

import pytest

from tests.topology.backend.site import (
    BACKEND4,
    BACKEND6,
    NODE4,
    VIP4,
    VIP6,
    counters,
    until,
)

pytestmark = pytest.mark.topology

URLS = {VIP4: f"http://{VIP4}", VIP6: f"http://[{VIP6}]"}


@pytest.fixture(autouse=True)
def server(site, script):
    return script(site.backend, "server.py")


@pytest.mark.parametrize("vip", [VIP4, VIP6])
@pytest.mark.parametrize("outer", [BACKEND4, BACKEND6])
def test_requests_come_in_by_gre_and_answers_go_straight_back(site, command, node, outer, vip):
    running = command().ready()
    node(outer)
    before = counters(site.router)
    size = 3_000_000
    assert site.client.run("curl", "-sSf", "-m", "20", f"{URLS[vip]}/{size}") == "z" * size
    after = counters(site.router)
    assert after["straight back"] - before["straight back"] > size / 65536
    assert after["elsewhere"] == before["elsewhere"]
    unwrapped = counters(site.backend)
    assert unwrapped["GRE from a node"] == unwrapped["to a VIP"] > 4
    assert running.end() == 0
    if not site.gre:
        assert running.logged("backend_stopping")["packets"] == unwrapped["GRE from a node"]


@pytest.mark.parametrize("vip", [VIP4, VIP6])
@pytest.mark.parametrize("outer", [BACKEND4, BACKEND6])
def test_an_upload_fits_the_tunnel(site, command, node, *, outer, vip, tmp_path):
    """The encapsulator would end at the first packet that does not fit."""
    command().ready()
    wrapper = node(outer)
    body = bytes(range(256)) * 8000
    (tmp_path / "body").write_bytes(body)
    upload = ("curl", "-sSf", "-m", "30", "--data-binary", f"@{tmp_path}/body", URLS[vip])
    assert site.client.run(*upload) == hashlib.sha256(body).hexdigest()
    assert wrapper.poll() is None


@pytest.fixture
def merging(site):
    """Let the backend's interface merge segments (GRO), as network cards do."""
    settings = "/sys/class/net/eth0"
    site.client.run("ethtool", "-K", "eth0", "tx", "off")  # GRO merges finished segments only
    site.router.run("ethtool", "-K", "backend", "tso", "off", "gso", "off")  # so the peer polls
    site.backend.run("ethtool", "-K", "eth0", "gro", "on")
    # Hold what could still be merged for 2 ms.
    site.backend.run("sh", "-c", f"echo 2000000 > {settings}/gro_flush_timeout")
    site.backend.run("sh", "-c", f"echo 2 > {settings}/napi_defer_hard_irqs")
    yield
    site.backend.run("sh", "-c", f"echo 0 > {settings}/gro_flush_timeout")
    site.backend.run("sh", "-c", f"echo 0 > {settings}/napi_defer_hard_irqs")
    site.backend.run("ethtool", "-K", "eth0", "gro", "off")
    site.router.run("ethtool", "-K", "backend", "tso", "on", "gso", "on")
    site.client.run("ethtool", "-K", "eth0", "tx", "on")


@pytest.mark.parametrize("vip", [VIP4, VIP6])
@pytest.mark.parametrize("outer", [BACKEND4, BACKEND6])
@pytest.mark.usefixtures("user_space", "merging")
def test_merged_segments_are_unwrapped_whole(site, command, node, *, outer, vip):
    """GRO merges inside GRE, too, and leaves the checksum unfinished."""
    running = command().ready()
    node(outer)
    body = "0123456789abcdef" * 100_000
    upload = ("curl", "-sSf", "-m", "30", "--data-binary", "@-", URLS[vip])
    digest = hashlib.sha256(body.encode()).hexdigest()
    assert site.client.run(*upload, stdin=body) == digest
    running.end()
    end = running.logged("backend_stopping")
    assert end["bytes"] / end["packets"] > 3000, "nothing was merged: this test shows nothing"


def syn_ack_mss(site, vip):
    """Return the MSS option of the SYN-ACK that the client gets, as tcpdump reads it."""
    syn_ack = {
        VIP4: "tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)",
        VIP6: "ip6 and ip6[6] == 6 and ip6[53] & 0x12 == 0x12",
    }[vip]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    dump = site.client.start("tcpdump", "-nnl", "-c", "1", "-i", "eth0", syn_ack, **pipes)
    with dump.stdout, dump.stderr:
        while "listening" not in dump.stderr.readline():
            assert dump.poll() is None
        site.client.run("curl", "-sSf", "-m", "10", f"{URLS[vip]}/1")
        line = dump.stdout.readline()
        dump.wait(10)
    return int(re.search(r"mss (\d+)", line)[1])


@pytest.mark.parametrize(
    ("options", "mss4", "mss6"),
    [
        ((), 1416, 1396),  # 1500 - 40 - 4 (an IPv6 node) - 40 or 60
        (("--vip", VIP4, "--vip", VIP6, "--node", NODE4), 1436, 1416),  # 1500 - 20 - 4 - …
        (("--vip", VIP4, "--vip", VIP6, "--node", NODE4, "--mtu", "1400"), 1336, 1316),
    ],
    ids=["both families", "IPv4 nodes", "given MTU"],
)
def test_the_syn_ack_advertises_what_fits_the_tunnel(site, command, node, *, options, mss4, mss6):
    command(*options).ready()
    node(BACKEND4)
    assert syn_ack_mss(site, VIP4) == mss4
    assert syn_ack_mss(site, VIP6) == mss6


def test_connections_to_the_backend_itself_keep_their_mss(site, command):
    command().ready()
    reply = site.backend.run("ip", "route", "get", "198.51.100.2", "from", BACKEND4)
    assert "advmss" not in reply
    reply = site.backend.run("ip", "route", "get", "198.51.100.2", "from", VIP4)
    assert "advmss 1416" in reply


def test_a_smaller_link_mtu_makes_a_smaller_mss(site, command, node):
    command().ready()
    node(BACKEND4)
    site.backend.run("ip", "link", "set", "eth0", "mtu", "1400")
    try:
        until(lambda: syn_ack_mss(site, VIP4) == 1316, "MSS of the narrower link")
    finally:
        site.backend.run("ip", "link", "set", "eth0", "mtu", "1500")
    until(lambda: syn_ack_mss(site, VIP4) == 1416, "MSS of the link as it was")
