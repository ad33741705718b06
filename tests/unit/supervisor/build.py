"""Values for the tests of the supervisor."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from lbfwd.config import Config, parse
from lbfwd.net.links import Link
from lbfwd.net.resolve import NextHop, Resolution
from lbfwd.supervisor.watch import Watch

TEXT = """
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
name = "lb1"
interfaces = ["eth0"]
[workers]
cpus = [0, 1]
[[pool]]
name = "web"
table_size = 251
backends = [
  { name = "a", address = "10.0.0.1", weight = 2 },
  { name = "b", address = "10.0.0.2" },
]
[[service]]
name = "http"
vip = "192.0.2.10"
protocol = "tcp"
port = 80
pool = "web"
[[service]]
name = "any"
vip = "2001:db8::10"
protocol = "udp"
pool = "web"
affinity = "source"
"""


def config(*replacements: tuple[str, str]) -> Config:
    """The configuration above with texts replaced; each must be there."""
    text = TEXT
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return parse(text, "test.toml")


def link(name: str = "eth0", ifindex: int = 2, **changes: object) -> Link:
    """An Ethernet interface that is up."""
    values: dict[str, object] = {
        "name": name,
        "ifindex": ifindex,
        "mac": bytes([2, 0, 0, 0, 0, ifindex]),
        "mtu": 1500,
        "up": True,
        "carrier": True,
        "ethernet": True,
    }
    return Link(**(values | changes))  # type: ignore[arg-type]


def hop(to: str, over: Link, mac: int = 0xAA) -> NextHop:
    """A next hop on the link."""
    return NextHop(
        link=over,
        mac=bytes([2, 0, 0, 0, 1, mac]),
        source=ip_address("10.0.0.254"),
        mtu=over.mtu,
        gateway=ip_address(to),
    )


def resolved(*hops: NextHop) -> Resolution:
    """A resolution with these hops."""
    return Resolution(hops=hops, reason="")


class NoTunnel:
    """Stands for the tunnel of probes where nothing goes through it."""

    async def apply(self, wanted: object) -> None:
        assert not wanted

    async def look(self, _node: object, _resolutions: object) -> None:
        pass

    async def close(self) -> None:
        pass


def watch(operations: Callable[[], dict[Any, Any]] = dict) -> Watch:
    """A watch without a tunnel."""
    return Watch(NoTunnel(), operations)  # type: ignore[arg-type]


async def until(fact: Callable[[], bool]) -> None:
    """Wait for a fact, with a deadline."""
    async with asyncio.timeout(30):
        while not fact():  # noqa: ASYNC110 - other processes and threads make it true
            await asyncio.sleep(0.005)
