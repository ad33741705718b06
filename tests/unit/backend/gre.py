"""Packets built by Scapy, and a decapsulator with sockets in the places of its devices."""

import os
import socket
import threading
import time

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE

from lbfwd import ring

SETTLED_S = 5.0


class Bench:
    """A running decapsulator: ``give`` is the network, ``take`` the TUN device."""

    def __init__(self):
        kind = socket.SOCK_SEQPACKET  # keeps packets apart and, unlike DGRAM, tells the end
        self._pairs = {
            name: socket.socketpair(socket.AF_UNIX, kind) for name in ("raw4", "raw6", "tun")
        }
        self._pairs["tun"][1].settimeout(SETTLED_S)
        for pair in self._pairs.values():
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.counters = ring.DecapCounters()
        self.given = 0
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(
            target=ring.decap,
            args=(*(self._pairs[n][0].fileno() for n in self._pairs), self._wake, self.counters),
        )
        self._thread.start()

    def give(self, packet, family=4):
        self._pairs[f"raw{family}"][1].send(bytes(packet))
        self.given += 1

    def take(self):
        return self._pairs["tun"][1].recv(1 << 17)

    def flush(self, family=4):
        """Return once all that was given before has been worked off."""
        probe = IP() / GRE() / IP(dst="192.0.2.254") / UDP(dport=9)
        probe = probe if family == 4 else probe[GRE]
        self.give(probe, family)
        taken = []
        while not taken or taken[-1] != bytes(probe[GRE].payload):
            taken.append(self.take())
        self._wait_for_counters()
        return taken[:-1]

    def _wait_for_counters(self):
        """A packet is counted just after it was delivered."""
        deadline = time.monotonic() + SETTLED_S
        counters = self.counters
        while counters.packets + counters.malformed + counters.refused != self.given:
            assert time.monotonic() < deadline, "a packet was counted not at all, or twice"
            os.sched_yield()

    def close(self):
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        for pair in self._pairs.values():
            for end in pair:
                end.close()


def inner4(size=100, layer=None):
    return IP(src="198.51.100.7", dst="192.0.2.10") / (layer or TCP(dport=80)) / (b"x" * size)


def inner6(size=100, layer=None):
    return IPv6(src="2001:db8:c::7", dst="2001:db8::10") / (layer or TCP(dport=80)) / (b"y" * size)
