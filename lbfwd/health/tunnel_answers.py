"""Whether this node lets answers of probes in, looked at aside: a probe only knows "timeout".

No event tells of a changed sysctl, so all is looked at again every few seconds.
"""

import asyncio

from lbfwd.config import IPAddress
from lbfwd.health import tunnel_device
from lbfwd.health.rp_filter import Finding
from lbfwd.health.tunnel_error import TunnelError
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread

PERIOD_S = 4.0  # less than the supervisor's period: each of its passes comes after it
Pair = tuple[IPAddress, str]  # VIP, name of the interface that its answers come in by


class AnswerWatch:
    """Looks at each pair of a VIP and an interface, and logs what begins or ceases to block."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._asked: tuple[frozenset[IPAddress], frozenset[str]] = (frozenset(), frozenset())
        self._due = 0.0
        self._found: dict[Pair, Finding] = {}
        self._unknown = ""
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get()

    @property
    def blocked(self) -> tuple[Finding, ...]:
        """What blocks answers."""
        return tuple(self._found.values())

    def look(self, vips: frozenset[IPAddress], interfaces: frozenset[str]) -> None:
        """Begin to look at these pairs; the same ones again only after ``PERIOD_S``."""
        now = asyncio.get_running_loop().time()
        if self._asked == (vips, interfaces) and now < self._due:
            return
        self._asked, self._due = (vips, interfaces), now + PERIOD_S
        task = asyncio.create_task(self._look(vips, interfaces))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Look no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, vips: frozenset[IPAddress], interfaces: frozenset[str]) -> None:
        async with self._turn:
            try:
                found = await in_thread(None, tunnel_device.answers_blocked, vips, interfaces)
            except TunnelError as error:
                if str(error) != self._unknown:
                    self._log.warning("probe_answers_unknown", reason=str(error))
                self._unknown = str(error)
                return
            self._unknown = ""
            before = self._found
            self._found = {(finding.vip, finding.interface): finding for finding in found}
            for pair, finding in self._found.items():
                if before.get(pair) != finding:
                    told = {"reason": finding.reason, "fix": finding.fix}
                    self._log.warning("probe_answers_blocked", **_facts(pair), **told)
            for pair in before.keys() - self._found.keys():
                if pair[0] in vips and pair[1] in interfaces:
                    self._log.info("probe_answers_good", **_facts(pair))


def _facts(pair: Pair) -> dict[str, str]:
    return {"vip": str(pair[0]), "interface": pair[1]}
