"""Who is in the demo, how they are wired and addressed.

Clients and virtual IPs are documentation prefixes (RFC 5737, RFC 3849), so that nothing here can
be mistaken for a machine that exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lbfwd.demo.lab import Host, Lab

VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
NODE = {4: "10.0.0.2", 6: "2001:db8:f0::2"}
PORT = 80

PICTURE = """\
  ┌────────┐  requests ──►  ┌────────┐  requests ──►  ┌───────────────┐
  │ client ├────────────────┤ router ├────────────────┤     lbfwd     │
  └────────┘  ◄── answers   └─┬──┬──┬┘  ◄── GRE       │ 192.0.2.10    │
                       ┌──────┘  │  └──────┐          │ 2001:db8::10  │
                     ┌─┴─┐     ┌─┴─┐     ┌─┴─┐        └───────────────┘
                     │ a │     │ b │     │ c │  The backends answer the client
                     └───┘     └───┘     └───┘  directly, not through lbfwd."""


@dataclass(frozen=True)
class Place:
    """A backend's place; ``family`` of the tunnel to it, ``address`` of the backend."""

    name: str
    number: int
    family: int

    @property
    def address(self) -> str:
        """Where lbfwd sends this backend's packets."""
        return {4: f"10.0.{self.number}.2", 6: f"2001:db8:f{self.number}::2"}[self.family]


# Two tunnels over IPv4 and one over IPv6: clients of both families meet tunnels of both.
PLACES = (Place("a", 1, 4), Place("b", 2, 4), Place("c", 3, 6))


@dataclass(frozen=True)
class Network:
    """The hosts, wired."""

    client: Host
    router: Host
    node: Host
    backends: Mapping[str, Host]


def build(lab: Lab) -> Network:
    """Make the hosts, their cables and their routes. Raises LabError."""
    router = lab.host("router")
    # A new namespace takes over the machine's rp_filter. Answers of a VIP come from the backends
    # while the route to it points at the node: a strict filter would drop them.
    router.sysctl(
        ipv4__ip_forward=1,
        ipv6__conf__all__forwarding=1,
        ipv4__conf__all__rp_filter=0,
        ipv4__conf__default__rp_filter=0,
    )
    client = _attach(lab, router, "client", "198.51.100", "2001:db8:c")
    node = _attach(lab, router, "node", "10.0.0", "2001:db8:f0")
    backends = {
        place.name: _attach(
            lab, router, place.name, f"10.0.{place.number}", f"2001:db8:f{place.number}"
        )
        for place in PLACES
    }
    for family, vip in VIPS.items():
        router.run("ip", "route", "add", vip, "via", NODE[family])
    return Network(client, router, node, backends)


def _attach(lab: Lab, router: Host, name: str, prefix4: str, prefix6: str) -> Host:
    """Make a host with the router as its way to everywhere."""
    host = lab.host(name)
    mine = (f"{prefix4}.2/24", f"{prefix6}::2/64")
    routers = (f"{prefix4}.1/24", f"{prefix6}::1/64")
    lab.link(host, "eth0", mine, router, f"to-{name}", routers)
    for gateway in (f"{prefix4}.1", f"{prefix6}::1"):
        host.run("ip", "route", "add", "default", "via", gateway)
    return host
