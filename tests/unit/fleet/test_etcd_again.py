"""A watch that was lost: what it tells when etcd is there again, and how often that is tried."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from lbfwd.config.fleet import EtcdSettings
from lbfwd.demo.lab import eventually
from lbfwd.fleet.etcd import connect
from lbfwd.fleet.etcd_wire import Change, EtcdUnreachable
from tests.unit.fleet.etcd_server import EtcdServer, etcd, free_port
from tests.unit.fleet.test_etcd import PATIENCE_S, put_by_others

PAUSES = [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
NEW = {f"b{number}" for number in range(8)}


def come_back_with_other_data(server: EtcdServer) -> None:
    """It is written to while the client cannot see it: at another port.

    By then it has passed the revision that was watched.
    """
    seen, server.endpoint = server.endpoint, f"http://127.0.0.1:{free_port()}"
    server.kill()
    server.forget()
    server.start()
    eventually(server.serves, PATIENCE_S, "etcd serves")
    for key in sorted(NEW):
        put_by_others(server, f"/lbfwd/{key}", "1")
    server.kill()
    server.endpoint = seen
    server.start()


def test_who_follows_sees_what_there_is_now(tmp_path: Path) -> None:
    async def main(server: EtcdServer) -> None:
        settings = EtcdSettings(endpoints=(server.endpoint,))
        async with (
            asyncio.timeout(PATIENCE_S),
            connect(settings, Path()) as client,
            aclosing(client.follow("")) as states,
        ):
            await client.put("a", "1")
            while "a" not in await anext(states):
                pass
            coming = asyncio.ensure_future(anext(states))
            await asyncio.to_thread(come_back_with_other_data, server)
            assert set(await coming) == NEW

    with etcd(tmp_path) as server:
        asyncio.run(main(server))


def test_where_only_watching_fails_it_is_tried_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    async def changes(*_: object) -> AsyncGenerator[Change, None]:
        yield Change(1, {}, whole=True)
        raise EtcdUnreachable("the watch was ended")

    async def main() -> None:
        async with (
            connect(EtcdSettings(endpoints=("http://127.0.0.1:1",)), Path()) as client,
            aclosing(client.watch("")) as told,
        ):
            monkeypatch.setattr(client, "_changes", changes)
            monkeypatch.setattr(asyncio, "sleep", pause)
            while len(paused) < len(PAUSES):
                assert (await anext(told)).whole

    asyncio.run(main())
    assert paused == PAUSES
