"""MTU holes of the tunnel: found where packets vanish in silence, and only there."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lbfwd.demo.lab import Host, eventually
from lbfwd.demo.topology import Network
from lbfwd.health import tunnel_mtu
from lbfwd.health.route import Tunnelled
from lbfwd.health.tunnel_mtu import Hole, MtuWatch
from lbfwd.net.path_mtu import listening_for_path_mtus
from tests.topology.health.tunnel_site import BACKEND, VIP, Asker, Backend, chain, rules
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

NARROW = 1400
OVERHEAD = {"a": 24, "c": 44}
SILENT = chain(
    "output", "icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"
)
NO_ECHO = chain("input", "icmp type echo-request drop", "icmpv6 type echo-request drop")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_mtu, "ANSWER_S", 0.2)
    monkeypatch.setattr(tunnel_mtu, "TRIES", 2)
    monkeypatch.setattr(tunnel_mtu, "SETTLE_S", 0.2)


@contextmanager
def narrow(host: Host, interface: str) -> Iterator[None]:
    host.run("ip", "link", "set", interface, "mtu", str(NARROW))
    try:
        yield
    finally:
        host.run("ip", "link", "set", interface, "mtu", "1500")


async def check(asker: Asker, family: int, name: str) -> Hole | None:
    return await MtuWatch(asker.tunnel)._check(Tunnelled(VIP[family], BACKEND[name], 1))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", ["a", "c"])
def test_the_full_size_passes(asker: Asker, family: int, name: str) -> None:
    (way,) = asker.tunnel.ways(VIP[family], BACKEND[name])
    assert way.mtu == 1500 - OVERHEAD[name]
    assert asker.do(check(asker, family, name)) is None


@pytest.mark.parametrize(
    ("family", "name"), [pytest.param(4, "a", marks=pytest.mark.slow), (6, "c")]
)
def test_a_hole_is_named_with_what_passes_while_small_probes_are_answered(
    asker: Asker, network: Network, family: int, name: str
) -> None:
    with narrow(network.router, f"to-{name}"), rules(network.router, SILENT):
        found = asker.do(check(asker, family, name))
        assert asker.ask(family, name) == name
    assert found is not None
    assert f"packets of {1500 - OVERHEAD[name]} bytes to {BACKEND[name]}" in found.reason
    assert f"{NARROW - OVERHEAD[name]} bytes pass" in found.reason
    assert found.fix.startswith(f"ip route replace {BACKEND[name]} $(ip route get ")
    assert f" mtu {NARROW}  #" in found.fix


def test_a_path_mtu_that_is_learned_is_no_hole(asker: Asker, network: Network) -> None:
    async def check_and_look() -> Hole | None:
        task = asyncio.create_task(check(asker, 4, "a"))
        while not task.done():
            await asker.relook()
        return await task

    def listen() -> object:
        listening = listening_for_path_mtus()
        listening.__enter__()
        return listening

    listening = inside(network.node, listen)
    try:
        with narrow(network.router, "to-a"):
            assert asker.do(check_and_look()) is None
            (way,) = asker.tunnel.ways(VIP[4], BACKEND["a"])
            assert way.mtu == NARROW - OVERHEAD["a"]
    finally:
        listening.__exit__(None, None, None)  # type: ignore[attr-defined]
        network.node.run("ip", "route", "flush", "cache")


def test_a_backend_that_answers_no_echo_is_healthy_and_unknown(
    asker: Asker, backends: dict[str, Backend]
) -> None:
    with rules(backends["a"].host, NO_ECHO):
        with pytest.raises(TimeoutError):
            asker.do(check(asker, 4, "a"))
        assert asker.ask(4, "a") == "a"


@pytest.mark.slow
def test_holes_come_and_go_by_themselves(network: Network, backends: dict[str, Backend]) -> None:
    asker = Asker(network.node, mtu_check_s=1)
    try:
        asker.start()
        with narrow(network.router, "to-a"), rules(network.router, SILENT):
            eventually(lambda: bool(asker.tunnel.mtu_holes), 20, "the hole is found")
            assert set(asker.tunnel.mtu_holes) == {BACKEND["a"]}
        eventually(lambda: not asker.tunnel.mtu_holes, 20, "the hole is gone")
    finally:
        asker.close()
