"""The smallest site with a backend, and a backend to run in it.

client ── router ─┬─ node       takes the VIPs' packets and wraps them (encapsulator.py)
                  ├─ stranger   has no business with GRE
                  └─ backend    runs the real command and a real web server
"""

import json
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lbfwd.demo.lab import Host, Lab, eventually

HERE = Path(__file__).resolve().parent
DEADLINE_S = 20.0
VIP4, VIP6 = "192.0.2.10", "2001:db8::10"
NODE4, NODE6 = "10.0.1.2", "fd00:1::2"
BACKEND4, BACKEND6 = "10.0.3.2", "fd00:3::2"
CLIENT4, CLIENT6 = "198.51.100.2", "2001:db8:c::2"
BACKEND_OPTIONS = ("--vip", VIP4, "--vip", VIP6, "--node", NODE4, "--node", NODE6)

# What the router sees of packets that come from a VIP: where do they go?
RETURN_COUNTERS = f"""
table inet returns {{
  chain forward {{
    type filter hook forward priority filter;
    ip saddr {VIP4} oifname "client" counter comment "straight back"
    ip6 saddr {VIP6} oifname "client" counter comment "straight back"
    ip saddr {VIP4} oifname != "client" counter comment "elsewhere"
    ip6 saddr {VIP6} oifname != "client" counter comment "elsewhere"
  }}
}}
"""


def until(condition, what: str):
    """Wait for a fact; returns what the condition returned."""
    return eventually(condition, DEADLINE_S, what)


def has_gre_devices() -> bool:
    """Tell whether this kernel has GRE devices, and load its modules if so.

    Once loaded they put devices of their own into every new namespace, so before the first one.
    """
    with Lab() as lab:
        host = lab.host("gre")
        for kind in ("gre", "ip6gre"):
            host.run("ip", "link", "add", f"x{kind}", "type", kind, "external", check=False)
        return all(f"x{kind}" in host.run("ip", "-br", "link") for kind in ("gre", "ip6gre"))


class Site:
    """The site; ``gre`` tells that the kernel unwraps, so that user space has nothing to do."""

    def __init__(self, lab: Lab, gre: bool) -> None:
        self.gre = gre
        self.client, self.router, self.node = (lab.host(n) for n in ("client", "router", "node"))
        self.stranger, self.backend = lab.host("stranger"), lab.host("backend")
        self._link(lab, self.client, "198.51.100", "2001:db8:c:")
        self._link(lab, self.node, "10.0.1", "fd00:1:")
        self._link(lab, self.stranger, "10.0.2", "fd00:2:")
        self._link(lab, self.backend, "10.0.3", "fd00:3:")
        self.router.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        self.router.run("ip", "route", "add", VIP4, "via", NODE4)
        self.router.run("ip", "-6", "route", "add", VIP6, "via", NODE6)
        self.router.run("nft", "-f", "-", stdin=RETURN_COUNTERS)
        # Strict, as many distributions have it: what comes out of the tunnel would not pass.
        self.backend.sysctl(ipv4__conf__all__rp_filter=1)
        # Segments are cut by the client. Checksums stay unfinished, as on any veth, for user space;
        # the kernel's devices take packets as lbfwd sends them: finished, which ours here are not.
        finished = ["tx", "off"] if gre else []
        self.client.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off", *finished)

    def _link(self, lab: Lab, host: Host, net4: str, net6: str) -> None:
        port = host.netns.rsplit("-", 1)[1]
        lab.link(
            host, "eth0", (f"{net4}.2/24", f"{net6}:2/64"),
            self.router, port, (f"{net4}.1/24", f"{net6}:1/64"),
        )  # fmt: skip
        host.run("ip", "route", "add", "default", "via", f"{net4}.1")
        host.run("ip", "-6", "route", "add", "default", "via", f"{net6}:1")


def counters(host: Host) -> Counter[str]:
    """Return packets by the comment of the nftables rule that counted them."""
    found: Counter[str] = Counter()
    for item in json.loads(host.run("nft", "-j", "list", "ruleset"))["nftables"]:
        rule = item.get("rule", {})
        for expression in rule.get("expr", ()):
            if "counter" in expression:
                found[rule.get("comment", "")] += expression["counter"]["packets"]
    return found


def snapshot(host: Host, sysctls: bool = True) -> str:
    """Return all that a backend may change."""
    commands = [
        ("ip", "-d", "address"), ("ip", "rule"), ("ip", "-6", "rule"),
        ("ip", "route", "show", "table", "all"), ("ip", "-6", "route", "show", "table", "all"),
        ("nft", "list", "ruleset"),
    ]  # fmt: skip
    if sysctls:
        commands.append(("sysctl", "-a", "-r", r"^net\.ipv[46]\.(conf|neigh)\."))
    return "\n".join(host.run(*command) for command in commands)


class Command:
    """``lbfwd backend`` as a process of a host, and what it logs."""

    def __init__(
        self,
        host: Host,
        *options: str,
        prefix: Sequence[str] = (),
        program: Sequence[str] = ("-m", "lbfwd.cli.main"),
    ) -> None:
        argv = (*prefix, sys.executable, *program, "backend", *options)
        self.process = host.start(*argv, stderr=subprocess.PIPE, text=True, bufsize=1)
        self.lines: list[str] = []

    def wait_for(self, event: str) -> dict:
        """Read the log up to this event."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stderr, selectors.EVENT_READ)
            end = time.monotonic() + DEADLINE_S
            while selector.select(max(0.0, end - time.monotonic())):
                line = self.process.stderr.readline()
                if not line:
                    break
                self.lines.append(line)
                if f'"event": "{event}"' in line:
                    return json.loads(line)
        raise AssertionError(f"no event {event}:\n{''.join(self.lines)}")

    def ready(self) -> "Command":
        self.wait_for("backend_ready")
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, read the rest of the log, return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _out, rest = self.process.communicate(timeout=DEADLINE_S)
        self.lines += rest.splitlines(keepends=True)
        return self.process.returncode

    def logged(self, event: str) -> dict:
        """Return the first event of this name that was read."""
        entries = (json.loads(line) for line in self.lines)
        return next(entry for entry in entries if entry["event"] == event)

    def refusal(self) -> list[str]:
        """Wait for an end with status 1; return the reasons given."""
        _out, rest = self.process.communicate(timeout=DEADLINE_S)
        assert self.process.returncode == 1, rest
        return [line for line in rest.splitlines() if line.startswith("lbfwd backend: ")]
