"""What a node writes into etcd of the backends there: under one lease, which it keeps alive."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from lbfwd.fleet.registration import View
from lbfwd.health.standing import BackendKey
from lbfwd.supervisor import views as module
from lbfwd.supervisor.views import Views


class Etcd:
    """Notes what it is asked, and counts signs of life."""

    def __init__(self) -> None:
        self.keys: dict[str, int | None] = {}
        self.leases: list[int] = []
        self.alive = 0

    async def grant(self, ttl_s: int) -> int:
        self.leases.append(ttl_s)
        return len(self.leases)

    async def keep_alive(self, _lease: int) -> int:
        self.alive += 1
        return 10

    async def put(self, key: str, _text: str, lease: int | None) -> None:
        self.keys[key] = lease


def write(found: Mapping[BackendKey, View]) -> Etcd:
    """Have it write once."""
    etcd, wrote = Etcd(), asyncio.Event()

    async def look() -> Mapping[BackendKey, View]:
        if etcd.keys:  # it looks again when it has written
            wrote.set()
            await asyncio.Event().wait()
        return found

    async def main() -> None:
        writing = asyncio.create_task(Views(cast("Any", etcd)).run(look))
        async with asyncio.timeout(20.0):
            await wrote.wait()
        writing.cancel()

    asyncio.run(main())
    return etcd


def test_a_place_is_one_whatever_the_names_are() -> None:
    etcd = write({("web", "a/b"): View(node="dc1/lb1", state="active")})
    assert etcd.keys == {"views/web/a%2Fb/dc1%2Flb1": 1}


def test_the_lease_is_kept_while_many_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_S", 0.0)  # each sign of life is due at once
    monkeypatch.setattr(module, "PERIOD_S", 0.0)
    view = View(node="lb1", state="active")
    etcd = write({("web", str(number)): view for number in range(500)})
    assert set(etcd.keys.values()) == {1}
    assert len(etcd.keys) == 500
    assert etcd.alive >= 500


def test_a_dead_node_is_forgotten_within_the_time_that_the_document_says() -> None:
    """docs/registration.md: nodes write under a lease of 10 s."""
    assert write({("web", "a"): View(node="lb1", state="active")}).leases == [10]
