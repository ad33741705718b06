"""The monitor with real probes on loopback: who is asked, how often, and who hears of it."""

import asyncio
import math
import ssl
from collections.abc import Callable, Collection, Coroutine
from ipaddress import ip_address
from typing import Any

import pytest

from lbfwd.config import Config, parse
from lbfwd.health import monitor
from lbfwd.health.monitor import Ask, Monitor
from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.question import Question
from lbfwd.health.route import Direct, Route, Tunnelled
from lbfwd.health.standing import BackendKey
from tests.unit.health.servers import Handler, free_port, saying, silent, stream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = f"""
hash_key = "{"ab" * 16}"
[node]
interfaces = ["eth0"]
[workers]
cpus = [0]
"""


class Tunnel:
    """Stands for the tunnel: notes what is wanted, and goes straight."""

    def __init__(self) -> None:
        self.wanted: Collection[Tunnelled] = ()
        self.routes: list[tuple[str, str]] = []

    async def apply(self, wanted: Collection[Tunnelled]) -> None:
        self.wanted = wanted

    def route(self, vip: Any, backend: Any) -> Route:
        self.routes.append((str(vip), str(backend)))
        return Direct(vip)


class Scene:
    """A monitor and what it told."""

    def __init__(self) -> None:
        self.heard: list[frozenset[BackendKey]] = []
        self.tunnel = Tunnel()
        self.monitor = Monitor(self.tunnel, self.heard.append)

    def passing(self) -> dict[BackendKey, bool]:
        return {key: verdict.passing for key, verdict in self.monitor.verdicts().items()}


def pools(
    *ports: int,
    timing: str = "interval_ms = 100\ntimeout_ms = 300",
    change: tuple[str, str] = ("", ""),
) -> Config:
    """A pool of one backend for each port, asked over HTTP. Loopback is no address for backends,
    so the parsed configuration is changed."""
    text = HEAD + "".join(
        f"""
        [[pool]]
        name = "p{number}"
        backends = [{{ name = "b", address = "10.0.0.1" }}]
        [pool.health]
        type = "http"
        via = "direct"
        port = {port}
        rise = 1
        fall = 1
        {timing}
        """
        for number, port in enumerate(ports)
    )
    return parse(text.replace(*change), "f")


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask 127.0.0.1 in the place of 10.0.0.1."""
    real = monitor.questions

    def here(config: Config) -> dict[BackendKey, tuple[Any, ...]]:
        from dataclasses import replace

        return {
            key: tuple(replace(q, target=ip_address("127.0.0.1")) for q in several)
            for key, several in real(config).items()
        }

    monkeypatch.setattr(monitor, "questions", here)


def run(work: Callable[[Scene], Coroutine[Any, Any, None]]) -> Scene:
    scene = Scene()

    async def main() -> None:
        async with asyncio.timeout(20):
            try:
                await work(scene)
            finally:
                await scene.monitor.close()

    asyncio.run(main())
    return scene


async def until(fact: Callable[[], bool]) -> None:
    while not fact():  # noqa: ASYNC110 - sockets make it true
        await asyncio.sleep(0.005)


def counting(seen: list[bytes]) -> Handler:
    return saying(OK, seen)


def test_first_verdicts_of_good_and_bad() -> None:
    async def work(scene: Scene) -> None:
        async with stream(saying(OK)) as good, stream(silent) as hangs:
            await scene.monitor.apply(pools(good, free_port(1), hangs))  # type: ignore[arg-type]
            await scene.monitor.judged()
            verdicts = scene.monitor.verdicts()
            assert [v.passing for v in verdicts.values()] == [True, False, False]
            assert [v.last.name for v in verdicts.values()] == ["passed", "refused", "timeout"]
            assert "http 127.0.0.1:" in verdicts["p1", "b"].reason

    scene = run(work)
    assert frozenset().union(*scene.heard) == {("p0", "b"), ("p1", "b"), ("p2", "b")}


def test_nothing_to_ask_is_judged_at_once() -> None:
    async def work(scene: Scene) -> None:
        await scene.monitor.apply(parse(HEAD, "f"))
        await scene.monitor.judged()
        assert scene.monitor.verdicts() == {}

    run(work)


def test_equal_questions_are_asked_once_and_answer_all() -> None:
    seen: list[bytes] = []

    async def work(scene: Scene) -> None:
        async with stream(counting(seen)) as port:
            slow = "interval_ms = 60000\ntimeout_ms = 1000"
            await scene.monitor.apply(pools(port, port, port, timing=slow))
            await scene.monitor.judged()
            assert scene.passing() == {(f"p{n}", "b"): True for n in range(3)}

    scene = run(work)
    assert len(seen) == 1
    assert scene.heard == [frozenset((f"p{n}", "b") for n in range(3))]


def test_a_change_is_heard_and_a_hanging_neighbour_delays_nothing() -> None:
    async def work(scene: Scene) -> None:
        async with stream(silent) as hangs:
            async with stream(saying(OK)) as good:
                await scene.monitor.apply(pools(good, hangs))
                await scene.monitor.judged()
                assert scene.passing() == {("p0", "b"): True, ("p1", "b"): False}
                scene.heard.clear()
            await until(lambda: bool(scene.heard))
            assert scene.heard[0] == {("p0", "b")}
            assert scene.passing()["p0", "b"] is False

    run(work)


def test_a_reload_keeps_what_is_known_and_forgets_what_is_gone() -> None:
    seen: list[bytes] = []

    async def work(scene: Scene) -> None:
        slow = "interval_ms = 60000\ntimeout_ms = 1000"
        async with stream(counting(seen)) as one, stream(saying(OK)) as two:
            old, new = pools(one, timing=slow), pools(one, two, timing=slow)
            await scene.monitor.apply(old)
            await scene.monitor.judged()
            since = scene.monitor.verdicts()["p0", "b"].since
            await scene.monitor.apply(new, old)
            await scene.monitor.judged()
            assert scene.monitor.verdicts()["p0", "b"].since == since
            assert len(scene.passing()) == 2
            # Not taken up after all: what the old one asks was asked all the time.
            await scene.monitor.apply(pools(two, timing=slow), new)
            await scene.monitor.judged()
            await scene.monitor.apply(new)
            assert len(scene.passing()) == 2
            await scene.monitor.apply(old)
            assert scene.monitor.verdicts()["p0", "b"].since == since
            assert len(scene.passing()) == 1

    run(work)
    assert len(seen) == 1, "nothing was asked anew"


def test_it_asks_again_and_again_until_it_is_closed() -> None:
    seen: list[bytes] = []

    async def work(scene: Scene) -> None:
        async with stream(counting(seen)) as port:
            await scene.monitor.apply(pools(port))
            await until(lambda: len(seen) >= 4)
            await scene.monitor.close()
            left = {task for task in asyncio.all_tasks() if "_watch" in repr(task.get_coro())}
            assert left == set()

    run(work)


def test_each_probe_begins_in_a_turn_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are due, what is under way gets its answers before more of them begin."""
    turn, begun = 0, []

    async def note(_question: Question, _ask: Ask) -> Outcome:
        begun.append(turn)
        return PASSED

    async def work(scene: Scene) -> None:
        def tick() -> None:
            nonlocal turn
            turn += 1
            loop.call_soon(tick)

        loop = asyncio.get_running_loop()
        loop.call_soon(tick)
        slow = "interval_ms = 60000\ntimeout_ms = 1000"
        await scene.monitor.apply(pools(*range(1, 21), timing=slow))
        await scene.monitor.judged()

    monkeypatch.setattr(monitor, "FIRST_PROBES_S", math.inf)  # all at once
    monkeypatch.setattr(monitor, "outcome_of", note)
    run(work)
    assert len(begun) == len(set(begun)) == 20


def test_the_certificate_store_is_read_once_for_all_and_again_by_a_reload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[ssl.SSLContext] = []

    def store() -> ssl.SSLContext:
        read.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return read[-1]

    async def one_by_one(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def work(scene: Scene) -> None:
        https = ('type = "http"', 'type = "https"\nsni = "www.example.com"')
        for several in ((1, 2, 3), (4, 5, 6)):
            await scene.monitor.apply(pools(*several, change=https))
            await scene.monitor.judged()

    monkeypatch.setattr(ssl, "create_default_context", store)
    monkeypatch.setattr(asyncio, "to_thread", one_by_one)
    run(work)
    assert len(read) == 2


def test_a_verdict_is_about_the_address_that_was_asked() -> None:
    at = [ip_address(f"10.0.0.{number}") for number in (1, 2)]

    def config(port: int, address: object) -> Config:
        return parse(
            f"""{HEAD}
            [[pool]]
            name = "p"
            backends = [{{ name = "b", address = "{address}" }}]
            [pool.health]
            type = "tcp"
            port = {port}
            interval_ms = 60000
            [[service]]
            vip = "192.0.2.1"
            protocol = "tcp"
            pool = "p"
            """,
            "f",
        )

    async def work(scene: Scene) -> None:
        def passing() -> list[bool]:
            return [scene.monitor.passes(("p", "b"), address) for address in at]

        async with stream(saying(OK)) as port:
            await scene.monitor.apply(config(port, at[0]))
            assert passing() == [False, False]
            await scene.monitor.judged()
            assert passing() == [True, False]
            await scene.monitor.apply(config(port, at[1]))
            assert passing() == [False, False]
            await scene.monitor.judged()
            assert passing() == [False, True]

    run(work)


def test_through_the_tunnel_each_vip_is_asked_at_each_backend() -> None:
    text = (
        HEAD
        + """
        [[pool]]
        name = "p"
        backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }]
        [pool.health]
        type = "tcp"
        port = 1
        mtu_check_s = 9
        [[service]]
        vip = "192.0.2.1"
        protocol = "tcp"
        pool = "p"
        [[service]]
        vip = "2001:db8::1"
        protocol = "udp"
        pool = "p"
    """
    )

    async def work(scene: Scene) -> None:
        await scene.monitor.apply(parse(text, "f"))
        await until(lambda: len(scene.tunnel.routes) == len(scene.tunnel.wanted))

    scene = run(work)
    backends = [str(t.backend) for t in scene.tunnel.wanted]
    assert sorted(backends) == ["10.0.0.1", "10.0.0.2"]
    assert {t.mtu_check_s for t in scene.tunnel.wanted} == {9}
