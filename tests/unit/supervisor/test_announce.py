"""The announcer: routes follow what can be served, over a kernel's table in memory."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
import structlog

from lbfwd.config import Config
from lbfwd.net.announce import AnnounceError, Enforced, VipRoute
from lbfwd.supervisor import announce as module
from lbfwd.supervisor.announce import Announcer
from lbfwd.supervisor.state import derive
from tests.unit.supervisor.build import config, hop, link, resolved, until

VIP4, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
ETH0 = link()
HERE = resolved(hop("10.0.0.1", ETH0))
GONE = resolved()
A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
ANNOUNCE = ("[workers]", "[announce]\ntable = 100\ndrain_s = 1\n[workers]")
ONLY_IPV4 = ('name = "any"\n', 'name = "any"\nannounce = "never"\n')


class Kernel:
    """Routes of lbfwd's, and of others (which are in the way)."""

    def __init__(self) -> None:
        self.routes: set[VipRoute] = set()
        self.foreign: set[VipRoute] = set()
        self.broken = ""
        self.asked = 0

    def enforce(self, wanted: frozenset[VipRoute]) -> Enforced:
        self.asked += 1
        if self.broken:
            raise AnnounceError(self.broken)
        blocked = wanted & self.foreign
        added, removed = wanted - self.routes - blocked, self.routes - wanted
        self.routes = (self.routes | added) - removed
        return Enforced(added, removed, dict.fromkeys(blocked, "not lbfwd's"))


class World:
    """A node whose backends and workers are what the test says."""

    def __init__(self, kernel: Kernel, own: Config) -> None:
        self.kernel = kernel
        self.slots = frozenset({0})
        self.reconciler: Any = SimpleNamespace(
            config=own,
            state=None,
            looked=asyncio.Event(),
            view=SimpleNamespace(links={"eth0": ETH0}, state_of=lambda _name: "up"),
        )
        self.reach(HERE)
        crew: Any = SimpleNamespace(running=lambda: self.slots)
        self.announcer = Announcer(self.reconciler, crew)

    def reach(self, resolution: Any) -> None:
        self.take(self.reconciler.config, resolution)

    def take(self, own: Config, resolution: Any = HERE) -> None:
        self.reconciler.state = derive(own, {A: resolution, B: resolution}, {ETH0.ifindex: 0})
        self.reconciler.config = own

    def table(self, number: int = 100) -> set[str]:
        return {str(vip) for table, vip in self.kernel.routes if table == number}

    def reasons(self) -> dict[str, str]:
        return {str(vip.vip): vip.reason for vip in self.announcer.vips()}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(module, "enforce", kernel.enforce)
    return kernel


def play(kernel: Kernel, test: Callable[[World], Coroutine[Any, Any, None]]) -> list[Any]:
    """Run a test on a node that announces; returns what was logged."""

    async def run() -> list[Any]:
        with structlog.testing.capture_logs() as events:
            await test(World(kernel, config(ANNOUNCE)))
        return events

    return asyncio.run(run())


def named(events: list[Any], name: str) -> list[Any]:
    return [event for event in events if event["event"] == name]


def test_it_announces_what_is_served_and_withdraws_what_is_not(kernel: Kernel) -> None:
    async def test(world: World) -> None:
        await world.announcer.keep()
        assert world.table() == {"192.0.2.10", "2001:db8::10"}
        assert all(vip.announced and not vip.reason for vip in world.announcer.vips())
        world.reach(GONE)
        await world.announcer.keep()
        assert not world.table()
        assert set(world.reasons().values()) == {"no backend of pool web serves"}

    events = play(kernel, test)
    assert len(named(events, "vip_announced")) == 2
    withdrawn = named(events, "vip_withdrawn")
    assert [e["log_level"] for e in withdrawn] == ["warning", "warning"]
    assert withdrawn[0]["reason"] == "no backend of pool web serves"


def test_a_node_whose_workers_are_gone_withdraws_after_a_while(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbfwd.supervisor.announcement.GRACE_S", 0.2)
    monkeypatch.setattr(module, "TICK_S", 0.01)

    async def test(world: World) -> None:
        await world.announcer.keep()
        world.slots = frozenset()
        await world.announcer.keep()
        assert world.table()
        task = asyncio.create_task(world.announcer.run())
        await until(lambda: not world.table())
        task.cancel()
        assert set(world.reasons().values()) == {"no worker forwards"}

    play(kernel, test)


def test_a_node_without_an_interface_says_so(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbfwd.supervisor.announcement.GRACE_S", 0.0)

    async def test(world: World) -> None:
        await world.announcer.keep()
        world.reconciler.view.links = {"eth0": replace(ETH0, carrier=False)}
        await world.announcer.keep()
        assert set(world.reasons().values()) == {"no interface receives: eth0"}

    play(kernel, test)


def test_a_node_that_starts_without_carrier_announces_nothing(kernel: Kernel) -> None:
    async def test(world: World) -> None:
        world.reconciler.view.links = {"eth0": replace(ETH0, carrier=False)}
        await world.announcer.keep()
        assert not world.table()
        assert set(world.reasons().values()) == {"no interface receives: eth0"}
        world.reconciler.view.links = {"eth0": ETH0}
        await world.announcer.keep()
        assert len(world.table()) == 2, "nothing fell, so there is no hold-down"

    play(kernel, test)


def test_a_route_that_somebody_deletes_comes_back(kernel: Kernel) -> None:
    async def test(world: World) -> None:
        await world.announcer.keep()
        kernel.routes.discard(VipRoute(100, VIP4))
        await world.announcer.keep()
        assert world.table() == {"192.0.2.10", "2001:db8::10"}

    (event,) = named(play(kernel, test), "vip_route_restored")
    assert (event["vip"], event["table"]) == ("192.0.2.10", 100)


def test_a_foreign_route_in_the_way_is_told_once(kernel: Kernel) -> None:
    kernel.foreign = {VipRoute(100, VIP4)}

    async def test(world: World) -> None:
        await world.announcer.keep()
        await world.announcer.keep()
        assert world.table() == {"2001:db8::10"}
        assert world.reasons() == {"192.0.2.10": "not lbfwd's", "2001:db8::10": ""}
        kernel.foreign = set()
        await world.announcer.keep()
        assert world.table() == {"192.0.2.10", "2001:db8::10"}

    assert len(named(play(kernel, test), "announce_failed")) == 1


def test_a_kernel_that_refuses_is_asked_again(kernel: Kernel) -> None:
    kernel.broken = "routes of VIPs: Operation not permitted"

    async def test(world: World) -> None:
        for _ in range(2):
            await world.announcer.keep()
        assert set(world.reasons().values()) == {kernel.broken}
        kernel.broken = ""
        await world.announcer.keep()
        assert world.table() == {"192.0.2.10", "2001:db8::10"}

    assert len(named(play(kernel, test), "announce_failed")) == 1


def test_a_predecessors_routes_are_taken_over(kernel: Kernel) -> None:
    kept, surplus = VipRoute(100, VIP4), VipRoute(100, ip_address("192.0.2.99"))
    kernel.routes = {kept, surplus}

    async def test(world: World) -> None:
        await world.announcer.keep()
        assert world.table() == {"192.0.2.10", "2001:db8::10"}

    events = play(kernel, test)
    assert not named(events, "vip_route_restored")
    (event,) = named(events, "vip_withdrawn")
    assert (event["vip"], event["reason"]) == ("192.0.2.99", "left by a predecessor")


def test_routes_that_nobody_serves_are_discarded(kernel: Kernel) -> None:
    kernel.routes = {VipRoute(7, VIP4)}

    async def test(world: World) -> None:
        await world.announcer.discard()
        assert not kernel.routes
        await world.announcer.keep()
        assert world.table() == {"192.0.2.10", "2001:db8::10"}

    play(kernel, test)


def test_a_reload_withdraws_first_and_announces_last(kernel: Kernel) -> None:
    async def test(world: World) -> None:
        world.take(config(ANNOUNCE, ONLY_IPV4))
        await world.announcer.keep()
        assert world.table() == {"192.0.2.10"}
        new = config(ANNOUNCE, ("192.0.2.10", "192.0.2.20"))
        async with world.announcer.changing(new):
            assert not world.table()
            world.reconciler.state = derive(new, {A: HERE, B: HERE}, {ETH0.ifindex: 0})
            await world.announcer.keep()  # workers know the new ones, but no packets come in yet
            assert not world.table()
            world.take(new)
        assert world.table() == {"192.0.2.20", "2001:db8::10"}

    (event,) = named(play(kernel, test), "vip_withdrawn")
    assert (event["reason"], event["log_level"]) == ("not configured any more", "info")


def test_a_reload_that_fails_brings_back_what_was_withdrawn(kernel: Kernel) -> None:
    async def test(world: World) -> None:
        await world.announcer.keep()
        with contextlib.suppress(OSError):
            async with world.announcer.changing(config(ANNOUNCE, ONLY_IPV4)):
                assert world.table() == {"192.0.2.10"}
                raise OSError
        assert world.table() == {"192.0.2.10", "2001:db8::10"}

    (event,) = named(play(kernel, test), "vip_withdrawn")
    assert event["reason"] == 'announce = "never"'


def test_another_table_gets_the_routes_before_the_old_one_loses_them(kernel: Kernel) -> None:
    async def test(world: World) -> None:
        await world.announcer.keep()
        new = config(("[workers]", "[announce]\ntable = 101\n[workers]"))
        async with world.announcer.changing(new):
            assert len(world.table(100)) == 2
            world.take(new)
        assert (len(world.table(100)), len(world.table(101))) == (0, 2)

    withdrawn = named(play(kernel, test), "vip_withdrawn")
    assert {event["reason"] for event in withdrawn} == {"[announce] table = 101 now"}


def test_without_a_table_the_kernel_is_left_alone(kernel: Kernel) -> None:
    async def test(world: World) -> None:
        world.take(config())
        await world.announcer.keep()
        assert kernel.asked == 0
        assert set(world.reasons().values()) == {"[announce] table = 0: nothing is announced"}

    play(kernel, test)


def leaving(
    kernel: Kernel, packets: Callable[[], int], *, hurry: bool = False
) -> tuple[list[Any], float]:
    """Stop a node while packets come as ``packets`` counts. Returns the log, and how long."""
    took: list[float] = []

    async def test(world: World) -> None:
        await world.announcer.keep()
        hurried, clock = asyncio.Event(), asyncio.get_running_loop().time

        async def count(vips: frozenset[Any]) -> int:
            assert vips == {VIP4, VIP6}
            assert not kernel.routes
            await world.announcer.keep()  # the others still run
            assert not kernel.routes
            if hurry:
                hurried.set()
            return packets()

        begin = clock()
        await world.announcer.leave(count, hurried)
        took.append(clock() - begin)
        assert set(world.reasons().values()) == {"lbfwd stops"}

    return play(kernel, test), took[0]


def test_a_stop_waits_until_no_packets_come(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.3)
    monkeypatch.setattr(module, "COUNT_S", 0.02)
    counts = iter([100, 101, 103])
    events, took_s = leaving(kernel, lambda: next(counts, 103))
    assert took_s >= 0.3
    (event,) = named(events, "traffic_moved")
    assert event["packets"] == 3


def test_a_stop_waits_no_longer_than_drain_s(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COUNT_S", 0.1)
    counts = iter(range(10**6))
    events, took_s = leaving(kernel, lambda: next(counts))
    assert 1 <= took_s < 5
    (event,) = named(events, "traffic_remains")
    assert event["reason"] == "drain_s is over"
    assert event["packets"] > 1


def test_whoever_stops_it_twice_does_not_wait(kernel: Kernel) -> None:
    events, took_s = leaving(kernel, lambda: 0, hurry=True)
    assert took_s < 1
    (event,) = named(events, "traffic_remains")
    assert event["reason"] == "told again to stop"


def test_a_stop_right_after_a_takeover_waits_for_the_predecessors_traffic(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.0)
    kernel.routes = {VipRoute(100, VIP4)}
    packets = AsyncMock(return_value=0)
    play(kernel, lambda world: world.announcer.leave(packets, asyncio.Event()))
    packets.assert_awaited_once_with({VIP4})
    assert not kernel.routes


def test_a_stop_while_routes_are_added_waits_for_their_traffic(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.0)
    enforcing, stopping, enforce = threading.Event(), threading.Event(), kernel.enforce

    def slow(wanted: frozenset[VipRoute]) -> Enforced:
        enforcing.set()
        assert stopping.wait(10)
        return enforce(wanted)

    monkeypatch.setattr(module, "enforce", slow)
    packets = AsyncMock(return_value=0)

    async def test(world: World) -> None:
        keeping = asyncio.create_task(world.announcer.keep())
        await asyncio.to_thread(enforcing.wait, 10)
        leaving = asyncio.create_task(world.announcer.leave(packets, asyncio.Event()))
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.gather(keeping, leaving)

    play(kernel, test)
    packets.assert_awaited_once_with({VIP4, VIP6})
    assert not kernel.routes


def test_a_node_that_announces_nothing_does_not_wait(kernel: Kernel) -> None:
    async def never(_vips: object) -> int:
        raise AssertionError

    async def test(world: World) -> None:
        world.reach(GONE)
        await world.announcer.keep()
        await world.announcer.leave(never, asyncio.Event())

    assert not named(play(kernel, test), "draining")
