"""Keeps which nodes of the fleet take fragments, by asking them all, again and again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp

from lbfwd.config import Config
from lbfwd.fleet.peers import Readiness, Sight, ask, objection, step
from lbfwd.supervisor import log
from lbfwd.supervisor.peers import partners, takes_part
from lbfwd.supervisor.status import PeerStatus

if TYPE_CHECKING:
    from lbfwd.supervisor.reconcile import Reconciler

PERIOD_S = 1.0
HEARD_S = 2 * PERIOD_S  # by then every other node has asked again, and was answered
NOT_ASKED = "not asked yet"


class Peering:
    """Owner of ``live``: names of the nodes that are given fragments, this one's own among them."""

    def __init__(self) -> None:
        """Ask nobody yet."""
        self.live: frozenset[str] = frozenset()
        self._sights: Mapping[str, Sight] = {}
        self._log = log.get()

    async def run(self, reconciler: "Reconciler", own: Callable[[], Awaitable[Readiness]]) -> None:
        """Look for ever, and have the table over the live nodes published when it changes."""
        clock = asyncio.get_running_loop().time
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            while True:
                due = clock() + PERIOD_S
                live = await self._look(session, reconciler.config, own)
                if live != self.live:
                    self.live = live
                    await reconciler.republish()
                await asyncio.sleep(due - clock())

    def statuses(self, config: Config) -> tuple[PeerStatus, ...]:
        """Return all nodes that take part, in the order of the configuration."""
        if not takes_part(config):
            return ()
        return tuple(
            PeerStatus(
                name=node.name,
                addresses=node.addresses,
                here=node.name == config.node.name,
                live=node.name in self.live,
                reason=sight.reason if (sight := self._sights.get(node.name)) else "",
                since=datetime.fromtimestamp(sight.since, UTC) if sight else None,
            )
            for node in config.fleet.nodes
        )

    async def _look(
        self,
        session: aiohttp.ClientSession,
        config: Config,
        own: Callable[[], Awaitable[Readiness]],
    ) -> frozenset[str]:
        if not takes_part(config):
            self._sights = {}
            return frozenset()
        others = partners(config)
        apis = {node.name: node.api for node in config.fleet.nodes if node.name in others}
        answers = await asyncio.gather(*(ask(session, api) for api in apis.values()))
        mine, now = await own(), time.time()
        unknown = Sight(False, now, NOT_ASKED)
        before, self._sights = (
            self._sights,
            {
                name: step(self._sights.get(name, unknown), objection(name, mine, answer), now)
                for name, answer in zip(apis, answers, strict=True)
            },
        )
        self._note(before)
        found = {name for name, sight in self._sights.items() if sight.live}
        return frozenset(found | ({config.node.name} if mine.ready else set()))

    def _note(self, before: Mapping[str, Sight]) -> None:
        for name, sight in self._sights.items():
            was = before.get(name)
            if sight.live and not (was and was.live):
                self._log.info("peer_up", peer=name)
            elif was and was.live and not sight.live:
                self._log.warning("peer_down", peer=name, reason=sight.reason)
