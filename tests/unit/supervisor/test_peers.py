"""Who hands fragments over to whom, by which ways, and what follows from what nodes say."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from structlog.testing import capture_logs

from lbfwd.config import Config
from lbfwd.fleet import peers as fleet_peers
from lbfwd.fleet.peers import Readiness
from lbfwd.forwarding import Peers
from lbfwd.net.announce import Enforced
from lbfwd.net.filter import NO_PEERS
from lbfwd.net.resolve import Resolution
from lbfwd.peers import pack_peers
from lbfwd.supervisor import announce, peering
from lbfwd.supervisor.announce import Announcer
from lbfwd.supervisor.peering import Peering
from lbfwd.supervisor.peers import derive_peers, doors, partners, roster
from tests.unit.supervisor.build import config, hop, link, resolved, until

FLEET = """[fleet]
fragments = "peer"
nodes = [
  { name = "lb3", addresses = ["2001:db8:f::3"], api = "[2001:db8:f::3]:9108" },
  { name = "lb1", addresses = ["203.0.113.1", "2001:db8:f::1"], api = "203.0.113.1:9108" },
  { name = "lb2", addresses = ["2001:db8:f::2", "203.0.113.2"], api = "203.0.113.2:9108" },
]
[[pool]]"""
TWO, THREE = ip_address("203.0.113.2"), ip_address("2001:db8:f::3")
ETH0, ETH1 = link("eth0", 2), link("eth1", 3)
LIVE = frozenset({"lb1", "lb2", "lb3"})


def fleet(*replacements: tuple[str, str]) -> Config:
    return config(("[[pool]]", FLEET), *replacements)


def found() -> Mapping[Any, Resolution]:
    ways = (hop("10.9.0.1", ETH0), hop("10.9.0.2", ETH1, 0xBB))
    return {TWO: resolved(*ways), THREE: resolved(hop("fe80::1", ETH1))}


def test_partners_are_asked_for_the_family_that_both_have() -> None:
    assert partners(fleet()) == {"lb2": TWO, "lb3": THREE}


def test_what_comes_from_whom() -> None:
    both = doors(fleet())
    assert both.own == {ip_address("203.0.113.1"), ip_address("2001:db8:f::1")}
    assert both.others == {TWO, THREE, ip_address("2001:db8:f::2")}


def test_with_local_nobody_takes_part() -> None:
    local = fleet(('"peer"', '"local"'))
    assert (partners(local), doors(local)) == ({}, NO_PEERS)
    assert derive_peers(local, found(), {2: 0, 3: 1}, LIVE) is None


def derived(tx: Mapping[int, int], live: frozenset[str] = LIVE) -> Peers:
    made = derive_peers(fleet(), found(), tx, live)
    assert made is not None
    return made


def test_ways_leave_by_what_is_there_and_from_the_known_address() -> None:
    """Never from another source, nor to be cut on the way: the other node would not take it."""
    made = derived({2: 0, 3: 1})
    nodes = {node.name: node for node in made.nodes}
    assert made.here == "lb1"
    assert nodes["lb1"].paths == ()
    assert [(p.tx, p.dst_mac[-1]) for p in nodes["lb2"].paths] == [(0, 0xAA), (1, 0xBB)]
    for path in nodes["lb2"].paths:
        assert (path.source, path.destination) == (ip_address("203.0.113.1"), TWO)
        assert (path.gre_flags, path.may_fragment, path.entropy_bits) == (0x0100, False, 0)
    assert nodes["lb3"].paths[0].source == ip_address("2001:db8:f::1")
    assert derived({2: 0}).nodes[0].paths == ()


@pytest.mark.parametrize(
    ("backend", "mtu", "inner"),
    [
        ("10.0.0.2", 1500, 1500 - 24),
        ("10.0.0.2", 1400, 1400 - 24),
        ("fd00::2", 1500, 1500 - 44),
        ("10.0.0.2", 1200, 1280),
    ],
)
def test_ways_to_nodes_carry_no_more_than_those_to_backends(
    backend: str, mtu: int, inner: int
) -> None:
    """Or the sender of an IPv6 fragment is told an MTU with which none arrives."""
    ways = {ip_address("10.0.0.1"): resolved(hop("10.9.0.1", ETH0))}
    ways[ip_address(backend)] = resolved(hop("10.9.0.1", link("eth0", 2, mtu=mtu)))
    own = fleet(('"10.0.0.2"', f'"{backend}"'))
    made = derive_peers(own, {**found(), **ways}, {2: 0, 3: 1}, LIVE)
    assert made is not None
    nodes = {node.name: node for node in made.nodes}
    assert {path.mtu for path in nodes["lb2"].paths} == {inner + 20 + 4}
    assert {path.mtu for path in nodes["lb3"].paths} == {min(1500, inner + 40 + 4)}


def test_who_is_live_decides_the_table_alone() -> None:
    whole, less = derived({2: 0, 3: 1}), derived({2: 0, 3: 1}, LIVE - {"lb2"})
    assert [(n.name, n.live) for n in less.nodes] == [("lb3", True), ("lb1", True), ("lb2", False)]
    assert [n.paths for n in whole.nodes] == [n.paths for n in less.nodes]
    assert pack_peers(whole).rows == pack_peers(less).rows
    assert set(memoryview(pack_peers(whole).table).cast("H")) == {0, 1, 2}
    assert set(memoryview(pack_peers(less).table).cast("H")) == {0, 2}
    assert pack_peers(derived({}, frozenset())).table_size == 0


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"lb1"\n', '"lb2"\n', True),
        ("203.0.113.1:9108", "203.0.113.1:9109", True),
        ('"peer"', '"local"', False),
        ('"203.0.113.2"]', '"203.0.113.9"]', False),
        ('"lb3"', '"lb4"', False),
        ("000102", "000103", False),
    ],
)
def test_what_nodes_must_have_in_common(old: str, new: str, same: bool) -> None:
    assert (roster(fleet()) == roster(fleet((old, new)))) is same


class Reconciler:
    def __init__(self) -> None:
        self.config = fleet()
        self.published: list[frozenset[str]] = []
        self.peering = Peering()

    async def republish(self) -> None:
        self.published.append(self.peering.live)


def said(name: str, **change: object) -> Readiness:
    good = Readiness(node=name, ready=True, reason="", configuration="c", roster="r")
    return good.model_copy(update=change)


async def rounds(script: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Reconciler:
    """Look once for each: answers by name; ``own`` and ``config`` are this node's."""
    reconciler, ended, left = Reconciler(), asyncio.Event(), iter(script)
    now: dict[str, Any] = {}
    apis = {node.api: node.name for node in reconciler.config.fleet.nodes}

    async def own() -> Readiness:
        found: Readiness = now.get("own", said("lb1"))
        return found

    async def ask(_session: Any, api: str) -> Readiness | str:
        answer: Readiness | str = now.get(apis[api], "no answer")
        return answer

    async def wait(_seconds: float) -> None:
        if (following := next(left, None)) is None:
            ended.set()
            await asyncio.Event().wait()
        else:
            now.clear()
            now.update(following)
            reconciler.config = now.get("config", reconciler.config)

    await wait(0)
    monkeypatch.setattr(peering, "ask", ask)
    monkeypatch.setattr(peering.asyncio, "sleep", wait)  # type: ignore[attr-defined]
    task = asyncio.create_task(reconciler.peering.run(reconciler, own))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await ended.wait()
    task.cancel()
    return reconciler


def test_changes_are_published_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    all_well = {"lb2": said("lb2"), "lb3": said("lb3")}
    stops = {"lb2": said("lb2", ready=False, reason="lbfwd stops"), "lb3": said("lb3")}
    leaves = {"own": said("lb1", ready=False, reason="lbfwd stops"), "lb3": said("lb3")}
    local = {"config": fleet(('"peer"', '"local"'))}
    script = [all_well, all_well, all_well, stops, leaves, local]
    with capture_logs() as logs:
        reconciler = asyncio.run(rounds(script, monkeypatch))
    assert [sorted(live) for live in reconciler.published] == [
        ["lb1"],
        ["lb1", "lb2", "lb3"],
        ["lb1", "lb3"],
        ["lb3"],
        [],
    ]
    events = [(log["event"], log["peer"]) for log in logs]
    assert sorted(events[:2]) == [("peer_up", "lb2"), ("peer_up", "lb3")]
    assert events[2:] == [("peer_down", "lb2")]
    assert logs[2]["reason"] == "not ready: lbfwd stops"
    assert reconciler.peering.statuses(reconciler.config) == ()


def test_what_status_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    other = said("lb3", configuration="x")
    reconciler = asyncio.run(rounds([{"lb2": said("lb2"), "lb3": other}] * 2, monkeypatch))
    shown = {s.name: s for s in reconciler.peering.statuses(reconciler.config)}
    assert [name for name, s in shown.items() if s.live] == ["lb1", "lb2"]
    assert [name for name, s in shown.items() if s.here] == ["lb1"]
    assert shown["lb3"].reason == "has another configuration (lbfwd status --fleet)"
    assert shown["lb2"].since is not None
    assert shown["lb1"].since is None


@pytest.mark.parametrize("hurry", [False, True])
def test_a_stop_gives_the_others_the_time_to_hear(
    monkeypatch: pytest.MonkeyPatch, hurry: bool
) -> None:
    """Also where nothing is announced."""
    monkeypatch.setattr(announce, "enforce", lambda _wanted: Enforced(set(), set(), {}))
    monkeypatch.setattr(announce, "HEARD_S", 10 if hurry else 0.3)
    parts: list[Any] = [SimpleNamespace(config=fleet()), SimpleNamespace(running=set)]

    async def leave() -> float:
        announcer, hurried = Announcer(*parts), asyncio.Event()
        clock = asyncio.get_running_loop().time
        begin = clock()
        leaving = asyncio.create_task(announcer.leave(AsyncMock(), hurried))
        await until(lambda: announcer.node_reason() == "lbfwd stops")
        if hurry:
            hurried.set()
        await leaving
        return clock() - begin

    took_s = asyncio.run(leave())
    assert took_s < 5 if hurry else took_s >= 0.3


def test_all_nodes_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hang: the others must be asked in time. aiohttp itself opens a hundred."""
    monkeypatch.setattr(fleet_peers, "ANSWER_S", 60)
    asked: list[asyncio.StreamWriter] = []

    async def look() -> None:
        async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(writer)

        async with await asyncio.start_server(hang, "127.0.0.1", 0, backlog=400) as server:
            reconciler = Reconciler()
            reconciler.config = crowd(120, server.sockets[0].getsockname()[1])
            own = AsyncMock(return_value=said("lb1"))
            task = asyncio.create_task(reconciler.peering.run(reconciler, own))  # type: ignore[arg-type]
            await until(lambda: len(asked) == 120)
            task.cancel()
            for writer in asked:
                writer.close()

    asyncio.run(look())


def crowd(others: int, port: int) -> Config:
    """A fleet of this node and so many others."""
    nodes = (
        f'{{ name = "lb{n}", addresses = ["10.1.0.{n}"], api = "127.0.0.1:{port}" }}'
        for n in range(1, others + 2)
    )
    table = f'[fleet]\nfragments = "peer"\nnodes = [{", ".join(nodes)}]\n[[pool]]'
    return config(("[[pool]]", table))
