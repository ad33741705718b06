"""The client against real etcd-servers, and against servers that are none."""

import asyncio
import os
import signal
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from lbfwd.config.fleet import EtcdSettings
from lbfwd.fleet import etcd as client
from lbfwd.fleet.etcd import Etcd, connect
from lbfwd.fleet.etcd_wire import (
    Answered,
    Change,
    EtcdConflict,
    EtcdError,
    EtcdLeaseLost,
    EtcdUnreachable,
    Value,
)
from tests.unit.fleet.etcd_server import EtcdServer, cluster, etcd, free_port
from tests.unit.health import servers

T = TypeVar("T")
HERE = Path()
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


def run(
    *endpoints: str, ask: Callable[[Etcd], Awaitable[T]], prefix: str = "/lbfwd/", **keys: str
) -> T:
    async def main() -> T:
        settings = EtcdSettings(endpoints=endpoints, prefix=prefix, **keys)
        async with asyncio.timeout(PATIENCE_S), connect(settings, HERE) as opened:
            return await ask(opened)

    return asyncio.run(main())


def put_by_others(server: EtcdServer, key: str, value: str) -> None:
    text = {name: b64encode(it.encode()).decode() for name, it in (("key", key), ("value", value))}
    server.ask("/v3/kv/put", text)


async def until(changes: AsyncGenerator[Change, None], holds: Callable[[Change], bool]) -> Change:
    while not holds(change := await anext(changes)):
        pass
    return change


def says(key: str, text: str) -> Callable[[Change], bool]:
    def holds(change: Change) -> bool:
        value = change.values.get(key)
        return value is not None and value.text == text

    return holds


def test_keys_are_written_read_and_deleted_below_the_prefix(server: EtcdServer) -> None:
    async def ask(etcd: Etcd) -> None:
        assert await etcd.get("none") is None
        revision = await etcd.put("a/ä", "wört\n")
        assert await etcd.get("a/ä") == ("wört\n", revision)
        await etcd.put("a/b", "")
        found, at = await etcd.get_prefix("a/")
        assert (found, at) == (
            {"a/b": Value("", revision + 1), "a/ä": Value("wört\n", revision)},
            revision + 1,
        )
        assert await etcd.delete("a/b")
        assert not await etcd.delete("a/b")
        put_by_others(server, "/keys/a/b", "of others")
        assert (await etcd.get("a/b") or Value("", 0)).text == "of others"

    run(server.endpoint, ask=ask, prefix="/keys/")


def test_of_two_who_write_by_one_revision_the_second_is_refused(server: EtcdServer) -> None:
    async def ask(etcd: Etcd) -> None:
        first = await etcd.put("config", "first", only_if=0)
        with pytest.raises(EtcdConflict, match="/once/config: is not of revision 0 any more"):
            await etcd.put("config", "second", only_if=0)
        await etcd.put("config", "third", only_if=first)
        with pytest.raises(EtcdConflict, match=f"revision {first}"):
            await etcd.put("config", "fourth", only_if=first)
        assert (await etcd.get("config") or Value("", 0)).text == "third"

    run(server.endpoint, ask=ask, prefix="/once/")


def test_keys_go_with_their_lease(server: EtcdServer) -> None:
    async def ask(etcd: Etcd) -> None:
        lease = await etcd.grant(60)
        await etcd.put("node", "here", lease)
        assert await etcd.keep_alive(lease) == 60
        await etcd.revoke(lease)
        assert await etcd.get("node") is None
        with pytest.raises(EtcdLeaseLost, match="has run out"):
            await etcd.keep_alive(lease)
        with pytest.raises(Answered, match="lease not found"):
            await etcd.put("node", "again", lease)
        await etcd.revoke(lease)

    run(server.endpoint, ask=ask, prefix="/leases/")


def test_a_watch_tells_of_puts_and_deletions(server: EtcdServer) -> None:
    async def ask(etcd: Etcd) -> None:
        await etcd.put("a", "0")
        async with aclosing(etcd.watch("")) as changes:
            whole = await anext(changes)
            assert whole.whole
            assert set(whole.values) == {"a"}
            put_by_others(server, "/watch/b", "1")
            put_by_others(server, "/watch2/b", "not ours")
            await etcd.delete("a")
            seen: dict[str, Value | None] = {}
            while len(seen) < 2:
                seen |= (await anext(changes)).values
        assert seen == {"b": Value("1", whole.revision + 1), "a": None}
        async with aclosing(etcd.watch("", whole.revision + 1)) as changes:
            assert (await anext(changes)).values["b"] == seen["b"]

    run(server.endpoint, ask=ask, prefix="/watch/")


def test_a_watch_from_a_compacted_revision_begins_with_the_whole(server: EtcdServer) -> None:
    async def ask(etcd: Etcd) -> None:
        old = await etcd.put("a", "0")
        await etcd.put("a", "1")
        await etcd.put("gone", "1")
        await etcd.delete("gone")
        last = await etcd.put("b", "2")
        server.ask("/v3/kv/compaction", {"revision": str(last)})
        async with aclosing(etcd.watch("", old)) as changes:
            change = await anext(changes)
        assert change.whole
        assert {key: value and value.text for key, value in change.values.items()} == {
            "a": "1",
            "b": "2",
        }

    run(server.endpoint, ask=ask, prefix="/compact/")


def test_who_follows_sees_what_all_keys_are(server: EtcdServer) -> None:
    async def ask(etcd: Etcd) -> None:
        async with aclosing(etcd.follow("")) as states:
            assert await anext(states) == {}
            await etcd.put("a", "1")
            assert [value.text for value in (await anext(states)).values()] == ["1"]
            await etcd.delete("a")
            assert await anext(states) == {}

    run(server.endpoint, ask=ask, prefix="/follow/")


def test_a_watch_outlives_a_restart_and_a_loss_of_all_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.2)
    told: list[bool] = []

    async def main(server: EtcdServer) -> None:
        settings = EtcdSettings(endpoints=(server.endpoint,))
        async with (
            asyncio.timeout(PATIENCE_S),
            connect(settings, HERE, lambda problem: told.append(bool(problem))) as etcd,
            aclosing(etcd.watch("")) as changes,
        ):
            await etcd.put("a", "1")
            await until(changes, says("a", "1"))
            server.kill()
            coming = asyncio.ensure_future(until(changes, says("a", "2")))
            with pytest.raises(EtcdUnreachable, match=server.endpoint):
                await etcd.get("a")
            server.start()
            await written(etcd, "a", "2")
            await coming
            server.kill()
            server.forget()
            server.start()
            await written(etcd, "b", "3")
            back = await until(changes, says("b", "3"))
            assert back.whole
            assert set(back.values) == {"b"}

    with etcd(tmp_path) as server:
        asyncio.run(main(server))
    assert told == [True, False] * (len(told) // 2)
    assert told


async def written(etcd: Etcd, key: str, value: str) -> None:
    """Write as soon as etcd takes it."""
    while True:
        try:
            await etcd.put(key, value)
        except EtcdUnreachable:
            await asyncio.sleep(0.02)
        else:
            return


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_a_watch_goes_on_at_another_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    # A stopped one keeps its connections open and says nothing: only a question finds that out.
    monkeypatch.setattr(client, "IDLE_S", 0.5)
    monkeypatch.setattr(client, "ANSWER_S", 1.0)

    async def ask(etcd: Etcd) -> None:
        async with aclosing(etcd.watch("")) as changes:
            await anext(changes)
            coming = asyncio.ensure_future(until(changes, says("a", "1")))
            await etcd.put("b", "1")
            os.kill(members[0].pid, how)
            await written(etcd, "a", "1")
            await coming

    with cluster(tmp_path) as members:
        try:
            run(*(member.endpoint for member in members), ask=ask)
        finally:
            os.kill(members[0].pid, signal.SIGCONT)


def test_users_are_logged_in_and_again_when_etcd_forgot_them(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    login = {"user": "lbfwd", "password_file": str(secret)}

    async def ask(etcd: Etcd) -> None:
        await etcd.put("a", "1")
        server.kill()  # tokens are in memory only
        server.start()
        await written(etcd, "a", "2")
        assert (await etcd.get("a") or Value("", 0)).text == "2"
        async with aclosing(etcd.watch("")) as changes:
            await anext(changes)
            await etcd.put("b", "1", await etcd.grant(60))
            await until(changes, says("b", "1"))

    async def put(etcd: Etcd) -> None:
        await etcd.put("a", "3")

    with etcd(tmp_path) as server:
        for name, role in (("root", "root"), ("lbfwd", "lbfwd")):
            server.ask("/v3/auth/role/add", {"name": role})
            server.ask("/v3/auth/user/add", {"name": name, "password": "open sesame"})
            server.ask("/v3/auth/user/grant", {"user": name, "role": role})
        keys = {"key": "L2xiZndkLw==", "range_end": "L2xiZndkMA=="}  # /lbfwd/ to /lbfwd0
        permission = {"permType": "READWRITE", **keys}
        server.ask("/v3/auth/role/grant", {"name": "lbfwd", "perm": permission})
        server.ask("/v3/auth/enable", {})
        run(server.endpoint, ask=ask, **login)
        with pytest.raises(EtcdError, match="user name is empty"):
            run(server.endpoint, ask=put)
        with pytest.raises(Answered, match="permission denied"):
            run(server.endpoint, ask=put, prefix="/others/", **login)
        secret.write_text("wrong")
        with pytest.raises(EtcdError, match="authentication failed"):
            run(server.endpoint, ask=put, **login)
        secret.chmod(0o644)
        with pytest.raises(EtcdError, match=r"\[etcd\] password_file = .*chmod 0600"):
            run(server.endpoint, ask=put, **login)


def test_certificates_are_checked_on_both_sides(tmp_path: Path) -> None:
    ours = servers.certificate(tmp_path, "localhost")
    (tmp_path / "other").mkdir()
    servers.certificate(tmp_path / "other", "localhost")
    tls = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    tls.check_hostname = False  # etcd_server asks by address
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert ours

    async def put(etcd: Etcd) -> None:
        await etcd.put("a", "1")
        async with aclosing(etcd.watch("")) as changes:
            await anext(changes)

    def files(ca: str, own: str = "") -> dict[str, str]:
        pair = {"certificate_file": f"{own}cert.pem", "key_file": f"{own}key.pem"}
        return {"ca_file": ca, **(pair if own else {})}

    here, other = f"{tmp_path}/", f"{tmp_path}/other/"
    with etcd(tmp_path, tls) as server:
        endpoint = server.endpoint.replace("127.0.0.1", "localhost")
        run(endpoint, ask=put, **files(f"{here}cert.pem", here))
        with pytest.raises(EtcdUnreachable, match="self-signed certificate"):
            run(endpoint, ask=put, **files(f"{other}cert.pem", here))
        with pytest.raises(EtcdUnreachable, match=r"not valid for '127\.0\.0\.1'"):
            run(server.endpoint, ask=put, **files(f"{here}cert.pem", here))
        with pytest.raises(EtcdUnreachable, match=endpoint):
            run(endpoint, ask=put, **files(f"{here}cert.pem"))
        with pytest.raises(EtcdError, match=r'\[etcd\] ca_file = ".*none": No such file'):
            run(endpoint, ask=put, **files(f"{here}none"))


async def look(etcd: Etcd) -> Value | None:
    return await etcd.get("a")


@asynccontextmanager
async def rubbish(kind: str) -> AsyncIterator[str]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    handlers = {
        "hangs": servers.silent,
        "closes": servers.saying(b""),
        "no HTTP": servers.saying(b"\x16\x03\x01 SSH-2.0-etcd\r\n\r\n"),
        "no JSON": servers.saying(head + b"Content-Length: 5\r\n\r\n<p>hi"),
        "other JSON": servers.saying(head + b"Content-Length: 2\r\n\r\n[]"),
        "empty JSON": servers.saying(head + b"Content-Length: 2\r\n\r\n{}"),
        "deep JSON": servers.saying(head + b"Connection: close\r\n\r\n" + b"[" * 99_999),
        "infinity": servers.saying(
            head + b"Connection: close\r\n\r\n"
            b'{"header": {}, "kvs": [{"key": "YQ==", "mod_revision": Infinity}]}'
        ),
        "cut": servers.saying(head + b'Content-Length: 99\r\n\r\n{"header"'),
        "not found": servers.saying(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}"),
        "moved": servers.saying(
            b"HTTP/1.1 302 No\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        ),
    }
    async with servers.stream(handlers[kind]) as port:
        yield f"http://127.0.0.1:{port}"


KINDS = (
    "hangs", "closes", "no HTTP", "no JSON", "other JSON", "empty JSON", "deep JSON", "infinity",
    "cut", "not found", "moved",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_etcd_is_named_and_another_endpoint_asked(
    kind: str, server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.5)

    async def main() -> None:
        async with rubbish(kind) as endpoint, asyncio.timeout(PATIENCE_S):
            async with connect(EtcdSettings(endpoints=(endpoint,)), HERE) as etcd:
                with pytest.raises(EtcdUnreachable, match=endpoint):
                    await etcd.get("a")
                with pytest.raises(EtcdUnreachable, match=endpoint):
                    await etcd.put("a", "1", only_if=0)
                assert endpoint in etcd.problem
            both = EtcdSettings(endpoints=(endpoint, server.endpoint), prefix="/rubbish/")
            async with connect(both, HERE) as etcd, aclosing(etcd.watch("")) as changes:
                assert await etcd.get("none") is None
                assert (await anext(changes)).whole
                assert etcd.problem == ""

    asyncio.run(main())


def test_an_endpoint_that_is_closed_is_passed_over_even_by_a_write(server: EtcdServer) -> None:
    closed = f"http://127.0.0.1:{free_port()}"

    async def ask(etcd: Etcd) -> None:
        await etcd.put("a", "1", only_if=0)

    run(closed, server.endpoint, ask=ask, prefix="/closed/")
    with pytest.raises(EtcdUnreachable, match=f"{closed}: Connect"):
        run(closed, ask=look)


def test_what_etcd_refuses_is_said_in_its_words(server: EtcdServer) -> None:
    async def ask(etcd: Etcd) -> None:
        await etcd.put("a", "x" * 2_000_000)

    with pytest.raises(Answered, match=rf"{server.endpoint}/v3/kv/put: .*too large"):
        run(server.endpoint, ask=ask)
