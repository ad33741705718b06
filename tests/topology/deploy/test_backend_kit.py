"""The kit for the kernel's own GRE: the script and the nftables file, in a namespace.

Where the kernel has no GRE device, a bridge stands for it: everything else is real. Traffic through
the real device is the virtual machine's matter (tests/vm).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, Lab
from lbfwd.doctor.backend_facts import parse_filter

pytestmark = pytest.mark.topology

KIT = Path(__file__).parents[3] / "deploy/backend"
# Makes a bridge where a GRE device is asked for.
IP = """#!/bin/sh
case "$1 $2" in
"link add") [ "$6" = external ] && exec {ip} link add "$3" type bridge ;;
esac
exec {ip} "$@"
"""

# Sends a SYN from an address, and does not wait for an answer.
SYN = """
import socket, sys
with socket.socket() as sock:
    sock.bind((sys.argv[1], 0))
    sock.setblocking(False)
    sock.connect_ex(("10.0.0.1", 9))
"""


@pytest.fixture
def backend() -> Iterator[Host]:
    with Lab() as lab:
        host, other = lab.host("backend"), lab.host("other")
        lab.link(host, "eth0", ["10.0.0.11/24"], other, "eth0", ["10.0.0.1/24"])
        host.sysctl(ipv4__conf__all__rp_filter=1, ipv4__conf__eth0__rp_filter=0,
                    ipv4__conf__all__arp_ignore=2, ipv4__conf__all__arp_announce=0)  # fmt: skip
        yield host


@pytest.fixture
def bridges(tmp_path: Path) -> str:
    """A PATH whose ``ip`` makes bridges of GRE devices."""
    wrapper = tmp_path / "ip"
    wrapper.write_text(IP.format(ip=shutil.which("ip")))
    wrapper.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def gre(
    host: Host, verb: str, path: str = os.environ["PATH"]
) -> "subprocess.CompletedProcess[str]":
    argv = host.argv(
        ["env", f"PATH={path}", f"GRE_ENV={KIT / 'gre.env'}", str(KIT / "gre.sh"), verb]
    )
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def sysctl(host: Host, name: str) -> int:
    return int(host.run("sysctl", "-n", f"net.ipv4.conf.{name}"))


def state(host: Host) -> dict[str, str]:
    """What the script changes, by other means."""
    return {
        "links": host.run("ip", "-br", "link"),
        "addresses": host.run("ip", "-br", "address", "show", "lo"),
        "sysctls": host.run("sysctl", "-a", "-r", r"^net\.ipv4\.conf\..*(rp_filter|arp_)"),
    }


def test_a_kernel_without_gre_is_named_and_nothing_is_changed(backend: Host) -> None:
    before = state(backend)
    done = gre(backend, "up")
    if done.returncode == 0:
        pytest.skip("this kernel has GRE devices")
    assert "gre.sh: no device of kind gre: modprobe ip_gre" in done.stderr
    assert state(backend) == before


def test_up_twice_and_down(backend: Host, bridges: str) -> None:
    addresses = backend.run("ip", "-br", "address", "show", "lo")
    for _ in range(2):
        done = gre(backend, "up", bridges)
        assert done.returncode == 0, done.stderr
    links = json.loads(backend.run("ip", "-j", "link"))
    mtus = {link["ifname"]: link["mtu"] for link in links if "UP" in link["flags"]}
    assert (mtus["lbfwd-gre4"], mtus["lbfwd-gre6"]) == (1476, 1456)
    assert "fe80" not in backend.run("ip", "-6", "address", "show", "dev", "lbfwd-gre6")
    (lo,) = json.loads(backend.run("ip", "-j", "address", "show", "lo"))
    vips = {a["local"]: a for a in lo["addr_info"] if not a["local"].startswith(("127", "::1"))}
    assert (vips["192.0.2.10"]["prefixlen"], vips["192.0.2.10"]["scope"]) == (32, "host")
    assert (vips["2001:db8::10"]["prefixlen"], vips["2001:db8::10"]["deprecated"]) == (128, True)
    # eth0 is filtered as strictly as before, when `all` said so; a higher arp_ignore stays.
    assert [sysctl(backend, f"{n}.rp_filter") for n in ("all", "lbfwd-gre4", "eth0")] == [0, 0, 1]
    assert (sysctl(backend, "all.arp_ignore"), sysctl(backend, "all.arp_announce")) == (2, 2)

    assert gre(backend, "down", bridges).returncode == 0
    assert "lbfwd-gre" not in backend.run("ip", "-br", "link")
    assert backend.run("ip", "-br", "address", "show", "lo") == addresses


def test_wrong_usage(backend: Host) -> None:
    assert gre(backend, "sideways").returncode == 2


def test_the_filter_is_what_the_doctor_reads(backend: Host) -> None:
    for _ in range(2):
        backend.run("nft", "-f", str(KIT / "nftables.nft"))
    listing = backend.run("nft", "-j", "list", "table", "inet", "lbfwd_backend")
    found = parse_filter(json.loads(listing)["nftables"])
    assert [str(vip) for vip in found.vips] == ["192.0.2.10", "2001:db8::10"]
    assert {str(node) for node in found.nodes} == {
        "203.0.113.10", "203.0.113.11", "2001:db8:1::10", "2001:db8:1::11",
    }  # fmt: skip


def test_answers_of_a_vip_advertise_what_fits_the_tunnel(backend: Host, bridges: str) -> None:
    assert gre(backend, "up", bridges).returncode == 0
    backend.run("nft", "-f", str(KIT / "nftables.nft"))
    assert advertised(backend, "192.0.2.10") == 1416
    assert advertised(backend, "10.0.0.11") == 1460


def advertised(host: Host, source: str) -> int:
    """The MSS in a SYN from an address, as tcpdump reads it."""
    sniff = host.argv(
        ["tcpdump", "-c", "1", "-nni", "eth0", "--immediate-mode", f"tcp and src {source}"]
    )
    with subprocess.Popen(sniff, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stderr is not None
        assert it.stdout is not None
        while "listening" not in it.stderr.readline():
            pass
        host.run(sys.executable, "-c", SYN, source)
        line = it.stdout.readline()
    return int(line.partition("mss ")[2].partition(",")[0])
