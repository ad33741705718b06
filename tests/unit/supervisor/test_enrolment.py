"""What etcd holds, read; and registrations over HTTPS that are taken up, or refused."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from structlog.testing import capture_logs

from lbfwd.config import Config, parse
from lbfwd.demo.lab import eventually
from lbfwd.fleet.etcd_wire import Value
from lbfwd.fleet.registration import BACKENDS, Registration, RegistrationError, dump, place
from lbfwd.health.standing import Standing
from lbfwd.supervisor import enrolment as module
from lbfwd.supervisor.enrolment import Enrolment, Places, read_all, registered
from lbfwd.supervisor.registry import Entry, Registry, save
from lbfwd.supervisor.registry import dump as rows
from lbfwd.tables import FlowCount
from tests.unit.fleet.test_merge import CONFIG, TEXT, said

KEY = ("web", "a")
TOKEN = "0123456789abcdef"
GUARDED = parse(TEXT.replace('8::7/128"]', '8::7/128"]\ntoken_file = "token"'), "f")


def keys(*pairs: tuple[tuple[str, str], str]) -> dict[str, Value]:
    return {place(BACKENDS, key): Value(text, 1) for key, text in pairs}


def test_what_etcd_holds_is_read_and_what_is_none_is_named() -> None:
    good, now = said("10.0.0.12"), said("10.0.0.13", since=2.0)
    held = keys((KEY, dump(KEY, good, TOKEN)), (("web", "b"), dump(KEY, now, TOKEN)),
                (("web", "c"), "no JSON"), (("mail", "a"), dump(KEY, good, "")))  # fmt: skip
    found, bad = read_all({**held, "backends/strange": Value("x", 1)}, GUARDED, {"web": [TOKEN]})
    assert found == {KEY: good}
    assert {key: (b.reason.split(":")[0], b.since) for key, b in bad.items()} == {
        ("web", "b"): ('pool "web"', 2.0),
        ("web", "c"): ("registration", None),
        ("mail", "a"): ('pool "mail"', 1.0),
    }


def test_both_tokens_are_good_while_one_is_exchanged() -> None:
    new, other = TOKEN[::-1], said("10.0.0.13")
    b, c = ("web", "b"), ("web", "c")
    held = keys((KEY, dump(KEY, said("10.0.0.12"), TOKEN)), (b, dump(b, other, new)),
                (c, dump(c, other, TOKEN + new)))  # fmt: skip
    found, bad = read_all(held, GUARDED, {"web": (TOKEN, new)})
    assert (set(found), set(bad)) == ({KEY, b}, {c})


def test_without_its_token_a_node_believes_nobody() -> None:
    found, bad = read_all(keys((KEY, dump(KEY, said("10.0.0.12"), ""))), GUARDED, {})
    assert found == {}
    assert bad[KEY].reason == 'pool "web": this node cannot read its token'


class Node:
    """Stands for reconciler and observer; ``revised``: how often something was taken up."""

    def __init__(self, registry: Registry, config: Config = CONFIG) -> None:
        self.registry, self.base, self.config, self.revised = registry, config, config, 0

    async def revise(self) -> None:
        self.revised += 1
        self.registry.refused = self.registry.merge(self.base, self.config).refused

    async def republish(self) -> None:
        pass

    def standing(self, _key: Any) -> Standing:
        return Standing("joining", 0, False, "not yet", 0.0)

    async def flows_of(self, _key: Any, since: float) -> FlowCount:
        assert since > 0
        return FlowCount(3, 1)


def made(directory: Path, config: Config = CONFIG) -> tuple[Enrolment, Node]:
    registry = Registry()
    node = Node(registry, config)
    both = cast("Any", node), cast("Any", node)
    return Enrolment(registry, *both, Places(directory, directory)), node


def test_signs_of_life_take_nothing_up_again(tmp_path: Path) -> None:
    async def main() -> None:
        enrolment, node = made(tmp_path)
        for _ in range(3):
            view = await enrolment.put(KEY, said("10.0.0.12"), 10)
        assert (view.state, view.reason, view.since, node.revised) == ("joining", "not yet", 1.0, 1)
        assert '"name": "a"' in (tmp_path / "registrations.json").read_text()

    asyncio.run(main())


def test_who_is_refused_leaves_no_trace(tmp_path: Path) -> None:
    async def main() -> None:
        enrolment, node = made(tmp_path)
        with pytest.raises(RegistrationError, match=r"address 10\.0\.1\.1: outside"):
            await enrolment.put(KEY, said("10.0.1.1"), 10)
        assert node.registry.entries == {}
        assert '"name"' not in (tmp_path / "registrations.json").read_text()

    asyncio.run(main())


def test_nobody_takes_back_what_is_anothers(tmp_path: Path) -> None:
    async def main() -> None:
        enrolment, node = made(tmp_path)
        await enrolment.put(KEY, said("10.0.0.12"), 10)
        with pytest.raises(RegistrationError, match="is that of another backend"):
            await enrolment.remove(KEY, "10.0.0.13")
        assert node.registry.state(KEY) == "joining"
        await enrolment.remove(KEY, "10.0.0.12")
        assert node.registry.state(KEY) == "gone"
        await enrolment.remove(("web", "nobody"), "10.0.0.12")

    asyncio.run(main())


def test_a_lease_begins_when_it_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign of life that waited for a reload longer than its lease was lost at once."""
    now = [100.0]
    monkeypatch.setattr(module, "_now", lambda: now[0])

    async def main() -> float:
        enrolment, node = made(tmp_path)
        async with enrolment._lock:
            waiting = asyncio.create_task(enrolment.put(KEY, said("10.0.0.12"), 2))
            await asyncio.sleep(0)  # it has begun, and waits
            now[0] = 110.0
        await waiting
        return node.registry.entries[KEY].until

    assert asyncio.run(main()) == 112.0


def test_flows_are_counted_for_those_who_wait(tmp_path: Path) -> None:
    async def main() -> None:
        enrolment, node = made(tmp_path)
        paused = Registration(address=ip_address("10.0.0.12"), since=1.0, state="paused")
        assert (await enrolment.put(KEY, paused, 10)).flows is None
        node.registry._proven |= {KEY}
        assert (await enrolment.view(KEY)).flows == 3

    asyncio.run(main())


def test_a_token_is_read_anew_and_nobody_is_let_in_without_its_file(tmp_path: Path) -> None:
    async def main() -> None:
        enrolment, _node = made(tmp_path, GUARDED)
        file = tmp_path / "token"
        for text in (TOKEN, TOKEN[::-1]):
            file.write_text(text)
            file.chmod(0o600)
            assert await enrolment.tokens("web") == (text,)
        file.unlink()
        for _ in range(3):
            assert await enrolment.tokens("web") == ()
        file.touch(mode=0o600)
        file.write_text(TOKEN)
        assert await enrolment.tokens("web") == (TOKEN,)
        assert await enrolment.tokens("closed") == await enrolment.tokens("none") == ()

    with capture_logs() as logs:
        asyncio.run(main())
    reason = f"{tmp_path / 'token'}: cannot be read: No such file or directory"
    assert logs == [
        {"event": "registration_token_lost", "log_level": "error", "pool": "web", "reason": reason},
        {"event": "registration_token_found", "log_level": "info", "pool": "web"},
    ]


class Etcd:
    """Holds these keys, and never another."""

    def __init__(self, held: dict[str, Value]) -> None:
        self._held = held

    async def follow(self, _prefix: str) -> AsyncIterator[dict[str, Value]]:
        yield self._held
        await asyncio.Event().wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have token files read at every look, and looks follow each other at once."""
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    monkeypatch.setattr(module, "TICK_S", 0.001)
    monkeypatch.setattr(module, "Views", Mock(return_value=Mock(run=AsyncMock())))


@pytest.mark.usefixtures("impatient")
def test_a_token_file_that_is_exchanged_after_the_backends_lets_them_in(tmp_path: Path) -> None:
    def write(token: str) -> None:
        (tmp_path / "token").write_text(token)
        (tmp_path / "token").chmod(0o600)

    async def main() -> None:
        enrolment, node = made(tmp_path, GUARDED)
        write(TOKEN[::-1])
        etcd = Etcd(keys((KEY, dump(KEY, said("10.0.0.12"), TOKEN))))
        running = asyncio.create_task(enrolment.run(cast("Any", etcd)))
        await asyncio.to_thread(eventually, lambda: KEY in node.registry.bad, 10.0, "refused")
        write(TOKEN)
        await asyncio.to_thread(eventually, lambda: KEY in node.registry.entries, 10.0, "let in")
        running.cancel()
        assert node.registry.bad == {}

    asyncio.run(main())


@pytest.mark.usefixtures("impatient")
def test_who_registered_in_etcd_is_out_when_the_token_file_is_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        enrolment, node = made(tmp_path, GUARDED)
        (tmp_path / "token").touch(mode=0o600)
        (tmp_path / "token").write_text(TOKEN)
        etcd = Etcd(keys((KEY, dump(KEY, said("10.0.0.12"), TOKEN))))
        running = asyncio.create_task(enrolment.run(cast("Any", etcd)))
        await asyncio.to_thread(eventually, lambda: KEY in node.registry.entries, 10.0, "let in")
        (tmp_path / "token").unlink()
        await asyncio.to_thread(eventually, lambda: KEY in node.registry.bad, 10.0, "refused")
        running.cancel()
        assert node.registry.entries[KEY].lost is not None
        assert node.registry.bad[KEY].reason == 'pool "web": this node cannot read its token'

    asyncio.run(main())


def test_without_etcd_nobody_is_kept_who_registered_there(tmp_path: Path) -> None:
    entry = Entry(said("10.0.0.12"), "etcd", 1.0)
    kept = {KEY: entry, ("web", "b"): Entry(said("10.0.0.13"), "https", 1.0, 10.0, 11.0)}
    save(tmp_path, rows(kept))
    found = asyncio.run(registered(CONFIG, Places(tmp_path, tmp_path), None))
    assert list(found.entries) == [("web", "b")]
