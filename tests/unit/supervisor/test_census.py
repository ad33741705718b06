"""Live flows are counted no more often than is cheap, except for those who need to know."""

import asyncio
import time
from typing import Any, cast

import pytest

from lbfwd.forwarding import FlowTimes
from lbfwd.supervisor import census as module
from lbfwd.supervisor.census import Census
from lbfwd.tables import FlowCount


class Parts:
    """Tables with one flow more at each count."""

    tables_thread = None

    def __init__(self) -> None:
        self.counts = 0

    @property
    def tables(self) -> "Parts":
        return self

    def seats(self) -> None:
        pass

    def live_flows(self, _seats: Any, _times: Any) -> Any:
        self.counts += 1
        return {(("vip", "tcp", 80), ("web", "a", "address")): FlowCount(self.counts, 0)}

    def flows_in_use(self, _times: Any) -> tuple[int, ...]:
        return (self.counts,)


def test_an_answer_may_be_a_moment_old_but_not_older_than_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LEAST_AGE_S", 3600.0)

    async def scenario() -> list[int]:
        census, times = Census(cast("Any", Parts())), FlowTimes()
        found = [await census.flows(times), await census.flows(times)]
        now = time.monotonic()
        found += [await census.flows(times, now), await census.flows(times, now)]
        return [sum(flows.by_backend.values()) for flows in found]

    assert asyncio.run(scenario()) == [1, 1, 2, 2]
