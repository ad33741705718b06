"""Whether this node lets answers of probes in, looked at aside: a probe only knows "timeout"."""

import asyncio

from lbfwd.config import IPAddress
from lbfwd.health import tunnel_device
from lbfwd.health.rp_filter import Finding
from lbfwd.health.tunnel_error import TunnelError
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread

Pair = tuple[IPAddress, str]  # VIP, name of the interface that its answers come in by


class AnswerWatch:
    """Looks once at each pair of a VIP and an interface, and logs what blocks answers."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._asked: tuple[frozenset[IPAddress], frozenset[str]] = (frozenset(), frozenset())
        self._found: dict[Pair, Finding | None] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get()

    @property
    def blocked(self) -> tuple[Finding, ...]:
        """What blocks answers."""
        return tuple(finding for finding in self._found.values() if finding)

    def look(self, vips: frozenset[IPAddress], interfaces: frozenset[str]) -> None:
        """Begin to look at these pairs, and forget all others; twice the same is nothing."""
        if self._asked == (vips, interfaces):
            return
        self._asked = vips, interfaces
        pairs = frozenset((vip, name) for vip in vips for name in interfaces if vip.version == 4)
        task = asyncio.create_task(self._look(pairs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Look no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, pairs: frozenset[Pair]) -> None:
        async with self._turn:
            self._found = {pair: self._found[pair] for pair in pairs & self._found.keys()}
            new = pairs - self._found.keys()
            vips, interfaces = {vip for vip, _ in new}, {name for _, name in new}
            try:
                found = await in_thread(None, tunnel_device.answers_blocked, vips, interfaces)
            except TunnelError as error:
                self._log.warning("probe_answers_unknown", reason=str(error))
                return
            by_pair = {(finding.vip, finding.interface): finding for finding in found}
            for pair in new:
                self._found[pair] = by_pair.get(pair)
                if finding := by_pair.get(pair):
                    facts = {"vip": str(finding.vip), "interface": finding.interface}
                    self._log.warning(
                        "probe_answers_blocked", **facts, reason=finding.reason, fix=finding.fix
                    )
