"""The shared part: what a node starts with, and what it takes up, over a stand-in for etcd."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from lbfwd.config import Config, ConfigError, Problem
from lbfwd.config.load import load
from lbfwd.config.shared import Shared
from lbfwd.fleet.etcd_wire import EtcdError, Value
from lbfwd.supervisor import shared as module
from lbfwd.supervisor import shared_file
from lbfwd.supervisor.errors import Refused, SupervisorError
from lbfwd.supervisor.shared import SharedConfig
from lbfwd.supervisor.source import Source
from tests.unit.config.test_shared import ETCD, OWN, SHARED
from tests.unit.supervisor.build import config, until

CONFIG = config()


@dataclass
class Etcd:
    """``now``: what ``get`` says, or raises. ``told``: what a watch tells, one after another."""

    now: Value | EtcdError | None = None
    told: "asyncio.Queue[Value | None]" = field(default_factory=asyncio.Queue)
    problem: str = ""

    async def get(self, _key: str) -> Value | None:
        if isinstance(self.now, EtcdError):
            raise self.now
        return self.now

    async def follow(self, key: str) -> AsyncGenerator[Mapping[str, Value], None]:
        while True:
            value = await self.told.get()
            yield {} if value is None else {key: value}


class File(Source):
    """Takes everything for good that does not say otherwise."""

    def read(self, shared: Shared | None = None) -> Config:
        if shared and "bad" in shared.text:
            raise ConfigError([Problem(shared.name, "x", "", "is bad")])
        return CONFIG

    def replaces(self, _shared: Shared) -> bool:
        return False


class Bare(File):
    """Leaves pools and services to etcd."""

    def read(self, shared: Shared | None = None) -> Config:
        found = super().read(shared)
        return found if shared else found.model_copy(update={"pools": (), "services": ()})


SOURCE = File(Path("test.toml"), {})
BARE = Bare(Path("test.toml"), {})


@dataclass
class Node:
    """Takes up what ``shared.latest`` says, as ``Changes`` does; ``failures`` come first."""

    shared: SharedConfig
    failures: list[Exception] = field(default_factory=list)
    reloads: int = 0

    async def reload(self) -> None:
        self.reloads += 1
        if self.failures:
            raise self.failures.pop(0)
        latest = self.shared.latest
        SOURCE.read(latest)
        await self.shared.took_up(latest, changed=True)


def made(etcd: Etcd, directory: Path) -> SharedConfig:
    return SharedConfig(directory / "shared.toml", cast("Any", etcd), "/lbfwd/config")


def kept(directory: Path, text: str = "kept", revision: int = 3) -> None:
    shared_file.save(directory / "shared.toml", Shared(text, "", revision))


def started(etcd: Etcd, directory: Path) -> tuple[SharedConfig, list[str]]:
    with capture_logs() as logs:
        shared = made(etcd, directory)
        assert asyncio.run(shared.first(SOURCE)) is CONFIG
    return shared, [log["event"] for log in logs]


def revisions(shared: SharedConfig) -> tuple[int | None, int | None]:
    report = shared.report()
    assert report
    return report.revision, report.seen


def test_a_node_starts_with_what_etcd_says(tmp_path: Path) -> None:
    kept(tmp_path)
    shared, events = started(Etcd(Value("new", 5)), tmp_path)
    assert (revisions(shared), events) == ((5, 5), [])


def test_a_node_starts_before_anything_was_pushed(tmp_path: Path) -> None:
    shared, events = started(Etcd(), tmp_path)
    assert (revisions(shared), events) == ((None, None), ["shared_config_absent"])


@pytest.mark.parametrize("now", [EtcdError("away"), None])
def test_without_etcd_a_node_starts_from_disk(tmp_path: Path, now: EtcdError | None) -> None:
    kept(tmp_path)
    shared, events = started(Etcd(now), tmp_path)
    assert (revisions(shared), events) == ((3, 3), ["shared_config_from_disk"])
    assert shared.latest
    assert shared.latest.text == "kept", "a reload takes it up, not nothing"


def test_with_a_bad_one_in_etcd_a_node_starts_from_disk(tmp_path: Path) -> None:
    kept(tmp_path)
    shared, events = started(Etcd(Value("bad", 5)), tmp_path)
    assert revisions(shared) == (3, 5)
    assert events == ["reload_refused", "shared_config_from_disk"]
    assert (report := shared.report())
    assert report.problems == ("/lbfwd/config in etcd: x: is bad",)


def test_without_etcd_and_disk_a_node_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SupervisorError, match=r"etcd: away; no .*shared\.toml to start from"):
        asyncio.run(made(Etcd(EtcdError("away")), tmp_path).first(BARE))
    with pytest.raises(ConfigError, match="is bad"):
        asyncio.run(made(Etcd(Value("bad", 5)), tmp_path).first(SOURCE))


def test_without_etcd_a_node_whose_file_has_the_pools_starts(tmp_path: Path) -> None:
    """It uses etcd for registrations alone."""
    shared = made(Etcd(EtcdError("away")), tmp_path)
    assert asyncio.run(shared.first(SOURCE)) is CONFIG
    assert shared.latest is None


def test_a_kept_file_that_makes_no_sense_is_named_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "shared.toml").write_text("[flows]\n")
    shared, events = started(Etcd(Value("new", 5)), tmp_path)
    assert (revisions(shared), events) == ((5, 5), ["shared_config_not_kept"])


class Own(Source):
    """A real file, on any machine."""

    def read(self, shared: Shared | None = None) -> Config:
        return load(self.path, shared=shared)


WITH_ETCD = OWN + ETCD


def begin(directory: Path, etcd: Etcd | None, own: str) -> tuple[Config, list[str]]:
    """Start with this file of one's own and a leftover that holds pools and services."""
    (directory / "lbfwd.toml").write_text(own)
    kept(directory, SHARED)
    with capture_logs() as logs:
        shared = SharedConfig(directory / "shared.toml", cast("Any", etcd), "/lbfwd/config")
        config = asyncio.run(shared.first(Own(directory / "lbfwd.toml", {})))
    assert shared.latest is None
    (said,) = [log for log in logs if log["event"] == "shared_config_leftover"]
    assert (said["file"], said["revision"]) == (str(directory / "shared.toml"), 3)
    return config, [log["event"] for log in logs]


@pytest.mark.parametrize("now", [EtcdError("away"), None])
def test_pools_that_moved_into_the_file_leave_what_is_on_disk_behind(
    tmp_path: Path, now: EtcdError | None
) -> None:
    """Etcd is there for registrations alone."""
    config, _events = begin(tmp_path, Etcd(now), WITH_ETCD + SHARED.replace("10.0.0.1", "10.0.0.7"))
    assert [str(b.address) for pool in config.pools for b in pool.backends] == ["10.0.0.7"]


def test_without_etcd_in_the_file_what_is_on_disk_is_of_no_use(tmp_path: Path) -> None:
    config, events = begin(tmp_path, None, OWN)
    assert (config.pools, events) == ((), ["shared_config_leftover"])


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ("[flows]\n", "flows: stands in"),
        ('[[pool]]\nname = "web"\nbackends = [{ address = "10.0.0.7" }]\n', "pool: stands in"),
    ],
)
def test_a_file_that_has_only_a_part_of_it_is_an_error(
    tmp_path: Path, own: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        begin(tmp_path, Etcd(EtcdError("away")), WITH_ETCD + own)


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "shared.toml"
    assert shared_file.load(file) is None
    shared_file.save(file, Shared("# ä\n[flows]\n", "etcd", 2**62))
    assert shared_file.load(file) == Shared("# ä\n[flows]\n", str(file), 2**62)
    assert list(file.parent.iterdir()) == [file]


def follow(
    directory: Path, script: Callable[[Etcd, Node], Awaitable[None]], *failures: Exception
) -> list[str]:
    """Start with revision 5 and run the script beside the follower; returns the log's events."""

    async def main() -> None:
        etcd = Etcd(Value("first", 5))
        shared = made(etcd, directory)
        await shared.first(SOURCE)
        node = Node(shared, list(failures))
        task = asyncio.create_task(shared.run(node.reload))
        try:
            await script(etcd, node)
        finally:
            task.cancel()
            await asyncio.wait({task})

    with capture_logs() as logs:
        asyncio.run(main())
    return [log["event"] for log in logs]


def on_disk(directory: Path) -> tuple[str, int]:
    found = shared_file.load(directory / "shared.toml")
    return (found.text, found.revision) if found else ("", 0)


def test_what_etcd_tells_is_taken_up_once_and_kept(tmp_path: Path) -> None:
    async def script(etcd: Etcd, node: Node) -> None:
        await until(lambda: on_disk(tmp_path) == ("first", 5))
        for value in (Value("first", 5), Value("second", 6), Value("second", 6)):
            etcd.told.put_nowait(value)
        await until(lambda: on_disk(tmp_path) == ("second", 6))
        await until(etcd.told.empty)
        assert node.reloads == 1
        assert revisions(node.shared) == (6, 6)

    assert follow(tmp_path, script) == []


def test_the_same_text_at_another_revision_needs_no_reload(tmp_path: Path) -> None:
    async def script(etcd: Etcd, node: Node) -> None:
        etcd.told.put_nowait(Value("first", 9))
        await until(lambda: revisions(node.shared) == (9, 9))
        assert node.reloads == 0

    follow(tmp_path, script)


def test_a_bad_one_changes_nothing_and_the_next_good_one_is_taken_up(tmp_path: Path) -> None:
    async def script(etcd: Etcd, node: Node) -> None:
        etcd.told.put_nowait(Value("bad", 6))
        await until(lambda: revisions(node.shared) == (5, 6))
        await until(lambda: bool(node.reloads))
        assert (report := node.shared.report())
        assert report.problems == ("/lbfwd/config in etcd: x: is bad",)
        assert on_disk(tmp_path) == ("first", 5)
        etcd.told.put_nowait(Value("good", 7))
        await until(lambda: revisions(node.shared) == (7, 7))
        assert (report := node.shared.report())
        assert report.problems == ()

    follow(tmp_path, script)


def test_what_cannot_be_taken_up_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.01)

    async def script(etcd: Etcd, node: Node) -> None:
        etcd.told.put_nowait(Value("second", 6))
        await until(lambda: revisions(node.shared) == (6, 6))
        assert node.reloads == 4

    failures = (Refused("waits to be confirmed"), SupervisorError("no room"), KeyError("a bug"))
    assert follow(tmp_path, script, *failures) == ["change_crashed"]


def test_a_deleted_key_changes_nothing(tmp_path: Path) -> None:
    async def script(etcd: Etcd, node: Node) -> None:
        etcd.told.put_nowait(None)
        await until(lambda: bool((report := node.shared.report()) and report.problems))
        assert node.reloads == 0
        assert revisions(node.shared) == (5, None)

    assert follow(tmp_path, script) == ["shared_config_gone"]


def test_a_key_that_is_restored_is_no_problem_any_more(tmp_path: Path) -> None:
    """etcd from a backup holds the very revision that the node runs."""

    async def script(etcd: Etcd, node: Node) -> None:
        def problems() -> tuple[str, ...]:
            report = node.shared.report()
            assert report
            return report.problems

        for value in (None, None):
            etcd.told.put_nowait(value)
        await until(lambda: problems() == ("etcd has no key /lbfwd/config any more",))
        etcd.told.put_nowait(Value("first", 5))
        await until(lambda: problems() == ())
        etcd.told.put_nowait(Value("bad", 6))
        await until(lambda: problems() == ("/lbfwd/config in etcd: x: is bad",))
        for value in (None, Value("bad", 6)):
            etcd.told.put_nowait(value)
        await until(etcd.told.empty)
        await until(lambda: problems() == ("/lbfwd/config in etcd: x: is bad",))
        assert node.reloads == 1

    assert follow(tmp_path, script) == ["shared_config_gone", "shared_config_gone"]


def test_what_was_undone_comes_back_only_with_something_new(tmp_path: Path) -> None:
    async def script(etcd: Etcd, node: Node) -> None:
        etcd.told.put_nowait(Value("second", 6))
        await until(lambda: revisions(node.shared) == (6, 6))
        node.shared.went_back()
        assert revisions(node.shared) == (5, 6)
        etcd.told.put_nowait(Value("second", 6))  # as after a compaction
        etcd.told.put_nowait(Value("third", 7))
        await until(lambda: revisions(node.shared) == (7, 7))
        assert node.reloads == 2

    follow(tmp_path, script)


def test_a_disk_that_is_full_is_named_and_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")

    async def script(etcd: Etcd, node: Node) -> None:
        etcd.told.put_nowait(Value("second", 6))
        await until(lambda: revisions(node.shared) == (6, 6))

    assert set(follow(tmp_path / "state", script)) == {"shared_config_not_kept"}


def test_a_node_without_etcd_has_none_of_this(tmp_path: Path) -> None:
    shared = SharedConfig(tmp_path / "shared.toml")

    async def main() -> None:
        assert await shared.first(SOURCE) is CONFIG
        await shared.run(SOURCE.read)  # type: ignore[arg-type]
        with pytest.raises(Refused, match=r"\[etcd\] endpoints is empty"):
            await shared.candidate("abc")

    asyncio.run(main())
    assert shared.report() is None
