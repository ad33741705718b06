"""What this node makes of registrations, written into etcd for the backends: ``views/…``.

Under a lease: what a node that is gone has said goes, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote

from lbfwd.fleet import registration
from lbfwd.fleet.etcd import Etcd
from lbfwd.fleet.etcd_wire import EtcdError, EtcdLeaseLost
from lbfwd.fleet.registration import VIEWS, View
from lbfwd.health.standing import BackendKey
from lbfwd.supervisor import log

LEASE_S = 10  # for so long a backend that leaves waits for a node that is gone
PERIOD_S = 0.5
RENEW_S = 3.0
AGAIN_S = 5.0

Look = Callable[[], Awaitable[Mapping[BackendKey, View]]]


class Views:
    """Keeps them as they are."""

    def __init__(self, etcd: Etcd) -> None:
        """Write nothing yet."""
        self._etcd = etcd
        self._lease: int | None = None
        self._written: dict[str, str] = {}
        self._renewed = 0.0

    async def run(self, look: Look) -> None:
        """Write what is new, for ever; a lost etcd is waited for."""
        while True:
            try:
                await self._write(await look())
                await asyncio.sleep(PERIOD_S)
            except EtcdError:  # the client logs it
                self._lease = None
                await asyncio.sleep(AGAIN_S)
            except Exception:
                log.get().exception("registration_crashed")
                await asyncio.sleep(AGAIN_S)

    async def _write(self, views: Mapping[BackendKey, View]) -> None:
        wanted = {
            f"{registration.place(VIEWS, key)}/{quote(view.node, safe='')}": view.model_dump_json()
            for key, view in views.items()
        }
        if wanted or self._written:
            await self._renew()
        for place, text in wanted.items():
            if self._written.get(place) != text:
                await self._renew()  # thousands take longer than the lease
                await self._etcd.put(place, text, self._lease)
                self._written[place] = text
        for place in self._written.keys() - wanted.keys():
            await self._etcd.delete(place)
            del self._written[place]

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._lease is not None and now - self._renewed >= RENEW_S:
            try:
                await self._etcd.keep_alive(self._lease)
            except EtcdLeaseLost:
                self._lease = None
            self._renewed = now
        if self._lease is None:
            self._lease, self._renewed = await self._etcd.grant(LEASE_S), now
            self._written = {}
