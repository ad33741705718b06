"""The kernel's packet generator loads a node through bench/pktgen; every frame is accounted for.

pktgen here ── in0 node out0 ── b0 farm, which counts what comes to it. Function only, no figures.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, Lab, eventually
from lbfwd.supervisor.runtime import ADMIN_SOCKET
from tests.topology.node.stage import Node

pytestmark = pytest.mark.topology

SENDER = "load0"  # in the guest's first namespace: pktgen's threads are there
VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
PORT, NO_SERVICE = 53, 54
PACKETS, PPS = 3000, 1500

CONFIG = """
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
name = "lb1"
interfaces = ["in0"]
[workers]
cpus = [1]
rx_ring_mib = 16
[[pool]]
name = "dns"
table_size = 251
backends = [{ address = "10.1.0.2" }, { address = "10.1.0.3" }]
""" + "".join(
    f'[[service]]\nvip = "{vip}"\nprotocol = "udp"\nport = {PORT}\npool = "dns"\n'
    for vip in VIPS.values()
)

# The status as `lbfwd status --json` prints it, from a process that starts in no time.
STATUS = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(b"GET /v1/status HTTP/1.0\\r\\n\\r\\n")
    answer = b"".join(iter(lambda: sock.recv(65536), b""))
print(answer.partition(b"\\r\\n\\r\\n")[2].decode())
"""

COUNTER = """
table netdev arrived {
    chain in {
        type filter hook ingress device "b0" priority 0;
        ip protocol gre counter drop comment "gre"
    }
}
"""


class Stage:
    def __init__(self, lab: Lab, directory: Path) -> None:
        host, self.farm = lab.host("node"), lab.host("farm")
        pair = f"link add {SENDER} type veth peer name in0 netns {host.netns}"
        subprocess.run(["ip", *pair.split()], check=True)
        subprocess.run(["ip", "link", "set", SENDER, "up"], check=True)
        host.run("ip", "link", "set", "in0", "up")
        lab.link(host, "out0", ["10.1.0.1/24"], self.farm, "b0", ["10.1.0.2/24", "10.1.0.3/24"])
        self.farm.run("nft", "-f", "-", stdin=COUNTER)
        self.mac = host.run("cat", "/sys/class/net/in0/address").strip()
        self.node = Node(host, directory, CONFIG)
        self.node.ready()
        eventually(
            lambda: all(b["usable"] for p in self.node.status()["pools"] for b in p["backends"]),
            20, "backends",
        )  # fmt: skip

    def load(self, family: int, port: int) -> dict[str, object]:
        """Run pktgen and return its report."""
        status = [sys.executable, "-c", STATUS, str(self.node.runtime / ADMIN_SOCKET)]
        (self.node.runtime.parent / "status").write_text(
            "#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in status) + "\n"
        )
        argv = [sys.executable, "-m", "bench.pktgen", SENDER, "--mac", self.mac, "--vip",
                VIPS[family], "--port", str(port), "--packets", str(PACKETS), "--pps", str(PPS),
                "--flows", "500", "--json",
                "--status-command", f"sh {self.node.runtime.parent / 'status'}"]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def arrived(self) -> int:
        return count(self.farm)


def count(host: Host) -> int:
    listing = json.loads(host.run("nft", "-j", "list", "table", "netdev", "arrived"))["nftables"]
    (rule,) = (item["rule"] for item in listing if "rule" in item)
    return sum(e["counter"]["packets"] for e in rule["expr"] if "counter" in e)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Lab() as lab:
        yield Stage(lab, tmp_path_factory.mktemp("pktgen"))


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_sent_is_forwarded(stage: Stage, family: int) -> None:
    before = stage.arrived()
    report = stage.load(family, PORT)
    sent, forwarded = balance(report)
    assert (sent, forwarded) == (PACKETS, PACKETS)
    assert stage.arrived() - before == forwarded


def test_what_is_dropped_has_a_reason(stage: Stage) -> None:
    before = stage.arrived()
    report = stage.load(4, NO_SERVICE)
    sent, forwarded = balance(report)
    assert (sent, forwarded, stage.arrived() - before) == (PACKETS, 0, 0)
    assert report["node"]["dropped"] == {"no_service": PACKETS}  # type: ignore[index]


def balance(report: dict[str, object]) -> tuple[int, int]:
    """Return packets sent and forwarded; all others have a place where they ended."""
    node, total, lost = report["node"], report["total"], report["lost"]
    assert isinstance(node, dict)
    assert isinstance(total, dict)
    assert isinstance(lost, dict)
    assert total["errors"] == 0
    assert total["packets"] == node["forwarded"] + sum(lost.values())
    return total["packets"], node["forwarded"]
