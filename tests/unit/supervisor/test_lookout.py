"""Looking for a marked packet: one at a time, not too often, and never for longer than was said."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from scapy.layers.inet import UDP
from scapy.packet import Raw
from structlog.testing import capture_logs

from lbfwd.live import Marks
from lbfwd.supervisor.errors import Refused, SupervisorError, TooSoon
from lbfwd.supervisor.lookout import LEAST_PAUSE_S, Lookout
from tests.packet import bench
from tests.packet.bench import Bench, BenchMaker
from tests.packet.crafted import ip, raw
from tests.packet.memory import published

TOKEN = bytes(range(16))


def ring(name: str, index: int) -> Any:
    return SimpleNamespace(link=SimpleNamespace(name=name), attachment=SimpleNamespace(index=index))


@pytest.fixture
def node(make_bench: BenchMaker) -> Iterator[Bench]:
    return make_bench(bench.all_combinations(), workers=2)


def lookout(node: Bench, state: object = None) -> Lookout:
    state = state or SimpleNamespace(forwarding=bench.all_combinations())
    reconciler = SimpleNamespace(
        state=state, config=SimpleNamespace(node=SimpleNamespace(name="lb1"))
    )
    parts = SimpleNamespace(
        tables=node.tables,
        tables_thread=None,
        crew=SimpleNamespace(slots=[SimpleNamespace(cpu=2), SimpleNamespace(cpu=5)]),
        ports=SimpleNamespace(
            receivers=[ring("eth9", 3), ring("eth0", 0)],
            transmitters=[ring("eth1", 0), ring("eth2", 1)],
        ),
    )
    return Lookout(cast("Any", reconciler), cast("Any", parts))


@asynccontextmanager
async def running(made: Lookout) -> AsyncIterator[Lookout]:
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


def packet(token: bytes, port: int = 84) -> bytes:
    return raw(ip(4), UDP(dport=port), Raw(b"lbfwdtrc" + token))


def forward(node: Bench, data: bytes, worker: int = 0) -> None:
    node.forward(data, now_ms=time.monotonic_ns() // 1_000_000, worker=worker)


def armed_until_ms(node: Bench) -> int:
    with published(node.tables) as memory:
        return int(memory.control.live_until_ms)


def test_the_packet_is_told_by_names(node: Bench) -> None:
    async def whole() -> Any:
        async with running(lookout(node)) as looking:
            told = await looking.watch(TOKEN, 5)
            assert (told.node, told.token) == ("lb1", TOKEN.hex())
            assert 0 < told.seconds <= 5
            asked = asyncio.create_task(looking.report(TOKEN))
            forward(node, packet(TOKEN), worker=1)
            report = await asked
            assert not armed_until_ms(node), "it is found: nobody looks any more"
            assert await looking.report(TOKEN) == report, "whoever asks late is told, too"
            return report

    report = asyncio.run(whole())
    service, member, _hop = node.choose(packet(TOKEN))
    found = report.packet
    assert (found.worker, found.cpu, found.generation) == (1, 5, 1)
    assert (found.service, found.pool) == (service.name, "p4")
    assert (found.backend, found.address) == (member.name, member.address)
    assert (found.outcome, found.reason, found.chosen_by) == ("forwarded", "", "maglev_table")
    assert (found.received_on, found.sent_on) == ("eth0", "eth1")
    assert abs(found.seen_at.timestamp() - time.time()) < 60


def test_a_packet_that_is_dropped_is_told_with_its_reason(node: Bench) -> None:
    async def whole() -> Any:
        async with running(lookout(node)) as looking:
            await looking.watch(TOKEN, 5)
            forward(node, packet(TOKEN, port=9))
            return (await looking.report(TOKEN)).packet

    found = asyncio.run(whole())
    assert (found.outcome, found.reason, found.chosen_by) == ("dropped", "no_service", "nobody")
    assert (found.service, found.backend, found.address, found.sent_on) == ("", "", None, "")


def test_nobody_looks_for_longer_than_was_said(node: Bench) -> None:
    async def whole() -> Any:
        async with running(lookout(node)) as looking:
            before_s = time.monotonic()
            await looking.watch(TOKEN, 0.05)
            assert before_s + 0.04 < armed_until_ms(node) / 1000 < time.monotonic() + 0.06
            report = await looking.report(TOKEN)
            assert time.monotonic() >= before_s + 0.05
            assert not armed_until_ms(node)
            return report

    assert asyncio.run(whole()).packet is None


def test_one_at_a_time_and_not_too_often(node: Bench) -> None:
    other = TOKEN[::-1]

    async def whole() -> None:
        async with running(lookout(node)) as looking:
            await looking.watch(TOKEN, 5)
            await looking.watch(TOKEN, 5)  # asked by two ways
            with pytest.raises(Refused, match=r"another live trace is under way, for [45]\.\d s"):
                await looking.watch(other, 5)
            with pytest.raises(Refused, match=f"token {other.hex()}: is not looked for"):
                await looking.report(other)
            forward(node, packet(TOKEN))
            await looking.report(TOKEN)
            with pytest.raises(TooSoon, match="began less than 1 s ago"):
                await looking.watch(other, 5)

    asyncio.run(whole())


def test_after_a_pause_the_next_one_is_looked_for(
    node: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def whole() -> None:
        async with running(lookout(node)) as looking:
            await looking.watch(TOKEN, 0.01)
            await looking.report(TOKEN)
            monkeypatch.setattr("lbfwd.supervisor.lookout.LEAST_PAUSE_S", 0.0)
            await looking.watch(TOKEN[::-1], 5)
            forward(node, packet(TOKEN[::-1]))
            assert (await looking.report(TOKEN[::-1])).packet

    assert LEAST_PAUSE_S >= 1
    asyncio.run(whole())


def test_a_node_that_stops_looks_for_nothing_and_tells_so(node: Bench) -> None:
    async def whole() -> Any:
        looking = lookout(node)
        async with running(looking):
            await looking.watch(TOKEN, 5)
            asked = asyncio.create_task(looking.report(TOKEN))
        async with asyncio.timeout(5):
            return await asked

    assert asyncio.run(whole()).packet is None
    assert not armed_until_ms(node)


def test_a_node_that_starts_refuses(node: Bench) -> None:
    looking = lookout(node)
    looking._reconciler = cast("Any", SimpleNamespace(state=None))

    async def whole() -> None:
        with pytest.raises(SupervisorError, match="nothing is published yet"):
            await looking.watch(TOKEN, 1)

    asyncio.run(whole())


def test_a_record_of_an_earlier_token_is_not_told(node: Bench) -> None:
    marks = Marks(node.tables.files()[0], 2)
    marks.arm(TOKEN, 1 << 62)
    forward(node, packet(TOKEN))
    assert marks.find(TOKEN)
    assert marks.find(TOKEN[::-1]) is None
    marks.close()


def test_what_goes_wrong_ends_that_trace_only(node: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_marks: Marks, _token: bytes) -> None:
        raise OSError("no such record")

    async def whole() -> None:
        async with running(lookout(node)) as looking:
            with monkeypatch.context() as broken, capture_logs() as events:
                broken.setattr(Marks, "find", fails)
                await looking.watch(TOKEN, 5)
                assert (await looking.report(TOKEN)).packet is None
            assert [event["event"] for event in events] == ["live_trace_crashed"]
            assert armed_until_ms(node) == 0

    asyncio.run(whole())
