"""Where forwarders are measured: three namespaces in a row.

gen g0 ──────── n0 node n1 ──────── s0 sink
     .2         .1 10.0.0.1         10.0.0.11 … .22
  198.51.100.0/24

Frames for the VIPs come in at n0; what is forwarded leaves by n1, whose MTU has room for the
tunnel's header, and is dropped at the sink's ingress hook, so that the sink costs little. All
neighbours are static. The guard keeps the node's own stack from the frames, with or without lbfwd.

One core forwards, the other one does everything else: see FORWARD_CPU and OTHER_CPU.
"""

import json
import sys
from pathlib import Path

from lbfwd.demo.lab import Host, Lab

FORWARD_CPU, OTHER_CPU = 1, 0  # processor 0 has the kernel's own work besides
IN, OUT = "n0", "n1"  # the node's interfaces
IN_MTU, OUT_MTU = 1500, 1600
NODE = "10.0.0.1"
BACKENDS = tuple(f"10.0.0.{n}" for n in range(11, 23))
_DROP_ALL = """table netdev sink {
  chain drop_all { type filter hook ingress device "s0" priority 0; policy drop; }
}
"""
_TX_PACKETS = 9  # of the numbers behind an interface's name in /proc/net/dev: proc_net(5)
_BACKLOG = 11  # of /proc/net/softnet_stat: packets that wait (net/core/net-procfs.c)


class Stage:
    """The namespaces of the picture above. Lives as long as its Lab."""

    def __init__(self, lab: Lab) -> None:
        """Make them. Raises LabError."""
        self.lab = lab
        self.gen, self.node, self.sink = (lab.host(name) for name in ("gen", "node", "sink"))
        for host in (self.gen, self.node, self.sink):
            host.sysctl(ipv6__conf__default__disable_ipv6=1, ipv6__conf__all__disable_ipv6=1)
        lab.link(
            self.gen, "g0", ["198.51.100.2/24"], self.node, IN, ["198.51.100.1/24"], IN_MTU
        )  # fmt: skip
        lab.link(
            self.node, OUT, [f"{NODE}/24"], self.sink, "s0", [f"{a}/24" for a in BACKENDS], OUT_MTU
        )  # fmt: skip
        for address in BACKENDS:
            neighbour = f"{address} lladdr {mac(self.sink, 's0')} nud permanent dev {OUT}"
            self.node.run("ip", "neighbour", "replace", *neighbour.split())
        self.sink.run("nft", "-f", "-", stdin=_DROP_ALL)
        self.guard()

    def guard(self) -> None:
        """Install the node's ingress guard. ``lbfwd run`` has its own, and takes it away."""
        self.node.run(sys.executable, "-m", "bench.guard", IN)


def mac(host: Host, interface: str) -> str:
    """Return the MAC address of a host's interface."""
    text = host.run("ip", "-j", "link", "show", interface)
    return str(json.loads(text)[0]["address"])


def mac_bytes(host: Host, interface: str) -> bytes:
    """Return the MAC address of a host's interface, 6 bytes."""
    return bytes.fromhex(mac(host, interface).replace(":", ""))


def tx_packets(dev: str, interface: str) -> int:
    """Return the packets that an interface sent, from the text of a /proc/PID/net/dev."""
    for line in dev.splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == interface:
            return int(numbers.split()[_TX_PACKETS])
    raise ValueError(f"/proc/net/dev names no interface {interface}")


class Sent:
    """Counts the frames that left a node: the same cheap source for every forwarder."""

    def __init__(self, pid: int, interface: str = OUT) -> None:
        """``pid``: a process that lives in the node's namespace."""
        self._dev = Path(f"/proc/{pid}/net/dev")
        self._interface = interface

    def packets(self) -> int:
        """Return how many left since the interface was made."""
        return tx_packets(self._dev.read_text(encoding="ascii"), self._interface)


def waiting_in_softirq() -> int:
    """Return how many received packets wait for the kernel's attention, on all processors."""
    lines = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[_BACKLOG], 16) for line in lines)
