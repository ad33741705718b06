"""Netlink events ring, whatever the event loop is."""

import asyncio
import errno
import os
import socket
import subprocess
import threading
import time

import pytest
import uvloop

from lbfwd.net.doorbell import Doorbell
from tests.topology.net.wire import DEADLINE_S, inside

pytestmark = pytest.mark.topology

RUNNERS = [uvloop.run, asyncio.run]


@pytest.fixture
def host(lab):
    host = lab.host("node")
    host.run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1")
    host.run("ip", "link", "set", "e0", "up")
    host.run("ip", "link", "set", "e1", "up")
    return host


class Bell:
    """A doorbell whose calls can be awaited."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        self.calls = asyncio.Queue()
        self.faults = []
        loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.doorbell = Doorbell(loop, self.calls.put_nowait)

    async def rang(self):
        async with asyncio.timeout(DEADLINE_S):
            return await self.calls.get()

    async def until(self, kind):
        while kind not in await self.rang():
            pass

    async def quiet(self):
        """Take calls until none has come for a while."""
        try:
            while True:
                async with asyncio.timeout(0.3):
                    await self.calls.get()
        except TimeoutError:
            return

    async def __aenter__(self):
        await self.quiet()
        return self

    async def __aexit__(self, *_):
        self.doorbell.close()
        assert self.faults == []


async def run(host, *command, stdin=None):
    """Like host.run, while the loop goes on."""
    return await asyncio.to_thread(lambda: host.run(*command, stdin=stdin))


def within(host, runner, scenario):
    with inside(host):
        return runner(scenario())


EVENTS = {
    "route": [
        "ip link set e0 mtu 1400",
        "ip address add 10.0.0.1/24 dev e0",
        "ip address add fd00::1/64 dev e0 nodad",
        "ip route add 10.9.0.0/24 dev e0",
        "ip -6 route add fd99::/64 dev e0",
        "ip rule add from 10.1.1.1 lookup 100",
        "ip -6 rule add from fd01::1 lookup 100",
        "ip neighbour add 10.0.0.7 lladdr 02:00:00:00:00:07 dev e0",
        "ip nexthop add id 1 dev e0",
        "ip link set e1 down",
        "ip link delete e0",
    ],
    "nftables": ["nft add table netdev lbfwd", "nft flush ruleset"],
}


@pytest.mark.parametrize("runner", RUNNERS)
def test_each_kind_of_change_rings_with_its_kind(host, runner):
    async def scenario():
        async with Bell() as bell:
            for kind, commands in EVENTS.items():
                for command in commands:
                    await run(host, *command.split())
                    assert await bell.rang() == {kind}, command
                    await bell.quiet()

    within(host, runner, scenario)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_batch_rings_a_few_times_only(host, runner):
    batch = "".join(f"route add 10.9.{i % 250}.{i // 250} dev e0\n" for i in range(2000))

    async def scenario():
        async with Bell() as bell:
            start = time.monotonic()
            await run(host, "ip", "-batch", "-", stdin=batch)
            await bell.rang()
            took = time.monotonic() - start
            calls = 1 + bell.calls.qsize()
            assert calls <= 3 + took / 0.010

    within(host, runner, scenario)


def test_a_constant_stream_cannot_hold_the_call_back(host):
    """Thousands of events a second: never 10 ms of quiet."""
    lines = "".join(
        f"neighbour replace 10.0.0.7 lladdr 02:00:00:00:00:0{i % 2} dev e0 nud permanent\n"
        for i in range(200)
    ).encode()
    stream = host.start("ip", "-batch", "-", stdin=subprocess.PIPE)
    ended = threading.Event()

    def feed():
        while not ended.is_set():
            stream.stdin.write(lines)
        stream.stdin.close()

    async def scenario():
        bell = Bell()
        feeding = asyncio.create_task(asyncio.to_thread(feed))
        try:
            async with asyncio.timeout(DEADLINE_S):  # due after 3 s
                for _ in range(30):
                    await bell.until("route")
            assert not feeding.done()
        finally:
            ended.set()
            await feeding
            bell.doorbell.close()

    within(host, asyncio.run, scenario)
    assert stream.wait(DEADLINE_S) == 0


def test_lost_events_ring_as_well(host):
    batch = "".join(f"route add 10.{i // 250}.{i % 250}.0/24 dev e0\n" for i in range(4000))

    async def scenario():
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as witness:
            witness.bind((0, 1 << 6))
            async with Bell() as bell:
                host.run("ip", "-batch", "-", stdin=batch)  # the loop stands still meanwhile
                with pytest.raises(OSError, match="buffer") as lost:
                    witness.recv(1)
                assert lost.value.errno == errno.ENOBUFS
                assert "route" in await bell.rang()
                await bell.quiet()
                await run(host, *["ip", "link", "set", "e0", "mtu", "1400"])
                assert await bell.rang() == {"route"}

    within(host, asyncio.run, scenario)


@pytest.mark.parametrize("runner", RUNNERS)
def test_nothing_is_called_after_close(host, runner):
    async def scenario():
        async with Bell() as bell:
            host.run("ip", "link", "set", "e0", "mtu", "1400")
            for _ in range(3):
                await asyncio.sleep(0)  # the event is read, the call is due
            bell.doorbell.close()
            host.run("ip", "link", "set", "e0", "mtu", "1500")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await bell.calls.get()

    within(host, runner, scenario)


def test_without_the_capability_the_error_names_it(host):
    child = os.fork()
    if child == 0:
        status = 8
        with inside(host):
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            try:
                Doorbell(asyncio.SelectorEventLoop(), lambda _: None)
            except PermissionError as error:
                status = 7 if "nftables events needs CAP_NET_ADMIN" in str(error) else 9
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
