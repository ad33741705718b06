"""Capabilities, device drops, errors, logging, uninterrupted work."""

import asyncio
import json
import threading
from typing import Any

import pytest
import structlog

from lbfwd.config.key import HashKey
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.capabilities import missing
from lbfwd.supervisor.devices import TxDrops, combine
from lbfwd.supervisor.errors import describe

NET_ADMIN, NET_RAW = 1 << 12, 1 << 13  # include/uapi/linux/capability.h


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (0, ("CAP_NET_ADMIN", "CAP_NET_RAW")),
        (NET_ADMIN, ("CAP_NET_RAW",)),
        (NET_RAW | 1, ("CAP_NET_ADMIN",)),
        (NET_RAW | NET_ADMIN, ()),
        (0x1FFFFFFFFFF, ()),
    ],
)
def test_missing_capabilities_are_named(mask: int, names: tuple[str, ...]) -> None:
    status = f"Name:\tx: y\nCapPrm:\t{0:016x}\nCapEff:\t{mask:016x}\nCapBnd:\t{2**41 - 1:016x}\n"
    assert missing(status) == names


class Message(dict[str, Any]):
    """As pyroute2's: a mapping with attributes."""

    def __init__(self, attributes: dict[str, Any], **fields: Any) -> None:
        super().__init__(fields)
        self._attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self._attributes.get(name)


def test_drops_are_of_the_device_and_of_its_root_queue() -> None:
    links = [
        Message({"IFLA_STATS64": {"tx_dropped": 3}}, index=2),
        Message({"IFLA_STATS64": {"tx_dropped": 0}}, index=5),
        Message({}, index=6),
    ]
    qdiscs = [
        Message({"TCA_STATS": {"drop": 7}}, index=2, parent=0xFFFFFFFF),
        Message({"TCA_STATS": {"drop": 4}}, index=2, parent=0x10001),  # counted by the root
        Message({"TCA_STATS": {"drop": 9}}, index=2, parent=0xFFFFFFF1),  # ingress
        Message({}, index=5, parent=0xFFFFFFFF),
    ]
    assert combine(links, qdiscs) == {2: TxDrops(device=3, qdisc=7), 5: TxDrops()}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(12, "eth0: set up the RX ring: Cannot allocate memory"), "eth0: set up the RX"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (ValueError("plain"), "plain"),
        (ValueError(), "ValueError()"),
    ],
)
def test_an_error_is_described_without_its_number(error: Exception, text: str) -> None:
    assert describe(error).startswith(text)


def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    try:
        log.get().info("fact", key=HashKey(bytes(range(16))), number=1)
        (line,) = capsys.readouterr().err.splitlines()
    finally:
        structlog.reset_defaults()
    assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]
    assert json.loads(line)["event"] == "fact"
    assert json.loads(line)["timestamp"].endswith("Z")
    assert "00010203" not in line


def test_a_cancellation_waits_for_the_thread() -> None:
    entered, release, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        release.wait()
        done.set()

    async def scenario() -> bool:
        task = asyncio.create_task(in_thread(None, work))
        await asyncio.to_thread(entered.wait)
        task.cancel()
        await asyncio.wait({task}, timeout=0.05)
        early = task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return early

    assert not asyncio.run(scenario())
    assert done.is_set()
