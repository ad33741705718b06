"""Changes that meet each other, over a stand-in node that takes a configuration up when told to."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from lbfwd.config import Config
from lbfwd.config.shared import Shared
from lbfwd.supervisor import changes as module
from lbfwd.supervisor import shared_file
from lbfwd.supervisor.changes import Changes, Node, Terms
from lbfwd.supervisor.errors import Refused
from lbfwd.supervisor.operations import Operations
from lbfwd.supervisor.shared import SharedConfig
from lbfwd.supervisor.source import Source
from lbfwd.tables import FlowCount
from tests.unit.supervisor.build import config, until

OLD, NEW = config(), config(("weight = 2", "weight = 7"))


class File(Source):
    """Stands for a configuration file that has changed."""

    def read(self, _shared: Shared | None = None) -> Config:
        return NEW

    def warn(self, _config: Config) -> tuple[str, ...]:
        return ()


@dataclass
class Stage:
    """``gate``: what is taken up waits for it. ``failure``: of the next one."""

    directory: Path
    config: Config = OLD
    generation: int = 1
    state: None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    taking_up: int = 0
    published_at: float = 0.0
    counted_since: float = 0.0

    async def apply(self, new: Config) -> None:
        self.taking_up += 1
        await self.gate.wait()
        if self.failure:
            raise self.failure
        self.config = new
        self.generation += 1

    async def republish(self) -> None:
        self.published_at = time.monotonic()

    @property
    def base(self) -> Config:
        return self.config

    async def flows_of(self, _key: object, since: float = 0.0) -> FlowCount:
        self.counted_since = since
        return FlowCount()

    def changes(self, etcd: object = None) -> Changes:
        operations = Operations(self.directory)
        shared = SharedConfig(self.directory / "shared.toml", cast("Any", etcd), "/k")
        shared.latest = Shared("pushed", "etcd", 7) if etcd else None
        node = Node(cast("Any", self), cast("Any", None), operations, cast("Any", self), self.apply)
        return Changes(File(Path("test.toml"), {}), node, nullcontext, shared)


@asynccontextmanager
async def running(changes: Changes) -> AsyncIterator[None]:
    task = asyncio.create_task(changes.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_who_confirms_while_it_is_taken_back_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage(tmp_path)
        changes = stage.changes()
        stage.gate.set()
        await changes.reload(Terms(confirm_s=0.001))
        stage.gate.clear()
        async with running(changes):
            await until(lambda: stage.taking_up == 2)
            late = asyncio.create_task(changes.confirm("anna"))
            await asyncio.sleep(0)
            stage.gate.set()
            with pytest.raises(Refused, match="no reload waits to be confirmed"):
                await late
        assert stage.config == OLD

    asyncio.run(scenario())


def test_it_goes_on_after_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in taking a configuration up must not end the node with all its workers."""
    monkeypatch.setattr(module, "GO_BACK_AGAIN_S", 0.001)

    async def scenario() -> None:
        stage = Stage(tmp_path)
        changes = stage.changes()
        stage.gate.set()
        await changes.reload(Terms(confirm_s=0.001))
        stage.failure = RuntimeError("a bug")
        async with running(changes):
            await until(lambda: stage.taking_up >= 3)
            stage.failure = None
            await until(lambda: stage.config == OLD)

    with capture_logs() as logs:
        asyncio.run(scenario())
    crashed = [event for event in logs if event["event"] == "change_crashed"]
    assert len(crashed) >= 2
    assert all(event["exc_info"] for event in crashed)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyError("a bug")])
def test_what_is_in_service_is_told_as_such_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def full(_file: Path, _shared: Shared) -> None:
        raise failure

    monkeypatch.setattr(shared_file, "save", full)

    async def scenario() -> None:
        stage = Stage(tmp_path)
        stage.gate.set()
        reloaded = await stage.changes(etcd=object()).reload()
        assert stage.config == NEW
        assert reloaded.generation == 2
        assert str(tmp_path / "shared.toml") in reloaded.not_kept

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert sorted(event["event"] for event in logs) == ["reloaded", "shared_config_not_kept"]


def test_warnings_come_after_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered, warned = asyncio.Event(), asyncio.Event()

    async def warn(_source: object, config: Config) -> None:
        await answered.wait()
        assert config == NEW
        warned.set()

    monkeypatch.setattr(module, "warn", warn)

    async def scenario() -> None:
        stage = Stage(tmp_path)
        changes = stage.changes()
        stage.gate.set()
        async with running(changes), asyncio.timeout(10):
            await changes.reload()
            answered.set()
            await warned.wait()

    asyncio.run(scenario())


def test_flows_of_a_drained_backend_are_counted_after_it_drains(tmp_path: Path) -> None:
    """A count from before may lack the last new flow, and who waits would not wait for it."""

    async def scenario() -> None:
        stage = Stage(tmp_path)
        changes = stage.changes()
        await changes.operate("drained", "a", None, "anna")
        assert 0 < stage.published_at <= stage.counted_since
        await changes.operate("drained", "a", None, "bert")
        assert stage.counted_since == 0, "nothing new: any count will do"

    asyncio.run(scenario())
