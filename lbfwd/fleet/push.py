"""A shared configuration on its way to a fleet: looked at by every node, written, taken up."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from lbfwd.config import Config
from lbfwd.config.shared import Shared
from lbfwd.fleet.ask import Answer, ask_all
from lbfwd.fleet.etcd import Etcd, connect
from lbfwd.fleet.etcd_wire import EtcdConflict, EtcdUnreachable
from lbfwd.supervisor.changes import Forecast
from lbfwd.supervisor.shared import CANDIDATES, KEY
from lbfwd.supervisor.summary import Summary

PLAN_S = 120.0  # of the largest configurations, on a busy node
CANDIDATE_S = int(PLAN_S) + 60  # the candidate outlives whoever pushes by so much
POLL_S = 0.2


@dataclass(frozen=True)
class Looked:
    """What etcd holds, and what each node makes of the candidate. ``revision`` 0: etcd has none."""

    text: str
    revision: int
    plans: Sequence[Answer[Forecast]] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a pushed revision on a node. ``problem`` empty: it runs it."""

    node: str
    problem: str = ""
    generation: int = 0
    configuration: str = ""


class Push:
    """One configuration for one fleet. Blocks; raises EtcdError."""

    def __init__(self, config: Config, directory: Path, text: str) -> None:
        """``config``: as it is to become. ``directory``: where paths of ``[etcd]`` begin."""
        self._settings = config.etcd
        self._directory = directory
        self._nodes = {node.name: node.api for node in config.fleet.nodes}
        self._text = text

    def look(self) -> Looked:
        """Ask every node for its plan; nothing is asked when etcd holds this text already."""
        return asyncio.run(self._look())

    def write(self, revision: int) -> int:
        """Write; returns the new revision. Raises EtcdConflict: etcd's is not ``revision``."""

        async def write(etcd: Etcd) -> int:
            try:
                return await etcd.put(KEY, self._text, only_if=revision)
            except EtcdConflict as error:
                raise EtcdConflict(
                    f"another push came first ({error}): nothing was written; look at the plan of"
                    " this one again"
                ) from None
            except EtcdUnreachable as error:
                raise EtcdUnreachable(
                    f"{error}: it may have been written or not; push it again"
                ) from None

        async def main() -> int:
            async with connect(self._settings, self._directory) as etcd:
                return await write(etcd)

        return asyncio.run(main())

    def wait(self, revision: int, timeout_s: float) -> Iterator[Outcome]:
        """Yield what becomes of a revision on each node, as soon as it is known."""
        deadline = time.monotonic() + timeout_s
        waiting, pushed = dict(self._nodes), Shared(self._text, "", revision)
        while waiting:
            answers = ask_all(waiting, "/v1/summary", Summary)
            late = time.monotonic() > deadline
            for answer in answers:
                outcome = became(answer, pushed)
                if outcome is None and late:
                    outcome = Outcome(answer.node, why_late(answer, timeout_s))
                if outcome is not None:
                    del waiting[answer.node]
                    yield outcome
            if waiting:
                time.sleep(POLL_S)

    async def _look(self) -> Looked:
        async with connect(self._settings, self._directory) as etcd:
            now = await etcd.get(KEY)
            text, revision = now or ("", 0)
            if now and text == self._text:
                return Looked(text, revision)
            return Looked(text, revision, await self._plans(etcd))

    async def _plans(self, etcd: Etcd) -> Sequence[Answer[Forecast]]:
        name = secrets.token_hex(8)
        lease = await etcd.grant(CANDIDATE_S)
        try:
            await etcd.put(CANDIDATES + name, self._text, lease)
            question = "/v1/candidate?" + urlencode({"name": name})
            return await asyncio.to_thread(ask_all, self._nodes, question, Forecast, PLAN_S)
        finally:
            await etcd.revoke(lease)


def objections(answer: Answer[Forecast]) -> tuple[str, ...]:
    """Return why a node would not take up what it was asked about; empty: it would. Pure."""
    if answer.found is None:
        return answer.problems or ("no answer",)
    return tuple(f"needs a restart of lbfwd first: {change}" for change in answer.found.restart)


def became(answer: Answer[Summary], pushed: Shared) -> Outcome | None:
    """Return what became of it on a node; None: that is not known yet. Pure.

    Etcd counts revisions anew where it has lost its data: what a node runs is told by its digest.
    """
    found = answer.found
    if found is None or found.ready is None or found.shared is None:
        return None
    shared = found.shared
    if (shared.seen or 0) < pushed.revision:
        return None
    if shared.digest == pushed.digest or (not shared.digest and shared.revision == pushed.revision):
        return Outcome(answer.node, "", found.generation, found.configuration)
    if shared.seen == pushed.revision and shared.problems:
        return Outcome(answer.node, "; ".join(shared.problems))
    return None


def why_late(answer: Answer[Summary], timeout_s: float) -> str:
    """Return why a node has not taken it up in time, as far as that is known. Pure."""
    found = answer.found
    if found is None:
        return "; ".join(answer.problems)
    if found.shared is None:
        return "its [etcd] endpoints is empty: its configuration is its file's alone"
    if found.ready is None:
        return f"it does not forward yet after {timeout_s:g} s"
    away = f"; etcd: {found.shared.etcd_problem}" if found.shared.etcd_problem else ""
    return f"at revision {found.shared.revision}, not this one, after {timeout_s:g} s{away}"


def grouped(
    plans: Sequence[Answer[Forecast]], lines: Callable[[Forecast], Iterator[str]]
) -> Mapping[tuple[str, ...], list[str]]:
    """Return the nodes by what they plan, as lines; those that plan alike are together. Pure."""
    found: dict[tuple[str, ...], list[str]] = {}
    for answer in plans:
        if answer.found:
            found.setdefault(tuple(lines(answer.found)), []).append(answer.node)
    return found
