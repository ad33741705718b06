"""What a service manager hears: datagrams at a real socket, in the words of sd_notify(3)."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from lbfwd.supervisor import notify
from lbfwd.supervisor.notify import STILL_S, Notifier, stuck


@dataclass
class Pulse:
    state: Any
    moved_at: float


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Where the service manager listens, and its socket."""
    abstract = f"@lbfwd-test-{os.getpid()}-{time.monotonic_ns()}"
    address = str(tmp_path / "notify") if request.param == "path" else abstract
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        sock.settimeout(5)
        yield address, sock


def heard(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


def waiting(sock: socket.socket) -> list[list[str]]:
    """All datagrams that have come and were not looked at."""
    found = []
    sock.setblocking(False)
    while True:
        try:
            found.append(heard(sock))
        except BlockingIOError:
            return found


def test_a_message_is_one_datagram(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    Notifier(address).tell("READY=1", "STATUS=all is well")
    assert heard(sock) == ["READY=1", "STATUS=all is well"]


def test_a_reload_is_told_with_its_time_and_its_end(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with Notifier(address).reloading():
        first, clock = heard(sock)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert first == "RELOADING=1"
        assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= after
        assert waiting(sock) == []
    assert waiting(sock) == [["READY=1"]]


def test_a_refused_reload_is_over_too(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    with pytest.raises(ValueError, match="refused"), Notifier(address).reloading():
        raise ValueError("refused")
    assert [words[0] for words in waiting(sock)] == ["RELOADING=1", "READY=1"]


def test_stopping(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    Notifier(address).stopping()
    assert "STOPPING=1" in heard(sock)


def test_what_found_no_room_comes_with_the_next(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        target = "\0" + address[1:] if address[0] == "@" else address
        with suppress(BlockingIOError):
            while True:
                flood.sendto(b"X=1", target)
    notifier = Notifier(address)
    notifier.tell("READY=1")
    assert all(words == ["X=1"] for words in waiting(sock))
    notifier.tell("WATCHDOG=1")
    assert waiting(sock) == [["READY=1", "WATCHDOG=1"]]


def test_a_socket_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "nobody")
    notifier = Notifier(address)
    with capture_logs() as logs:
        notifier.tell("READY=1")
    assert [(entry["event"], entry["reason"], entry["log_level"]) for entry in logs] == [
        ("service_manager_not_told", "No such file or directory", "warning")
    ]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        notifier.tell("STOPPING=1")
        assert waiting(sock) == [["STOPPING=1"]], "what was said to nobody is forgotten"


@pytest.mark.parametrize(
    ("pid", "watchdog_s"),
    [("", 30.0), (str(os.getpid()), 30.0), ("1", 0.0)],
    ids=["nobody named", "for us", "for process 1"],
)
def test_the_environment_is_taken(pid: str, watchdog_s: float) -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "30000000", "PATH": "/bin"}
    if pid:
        environment["WATCHDOG_PID"] = pid
    notifier = Notifier.inherited(environment)
    assert environment == {"PATH": "/bin"}  # or a worker could speak for the supervisor
    assert notifier._watchdog_s == watchdog_s


def test_without_a_service_manager_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = Notifier.inherited({})
    asked = []
    with monkeypatch.context() as sealed, capture_logs() as logs:
        sealed.setattr(socket, "socket", lambda *_: asked.append("a socket"))
        notifier.tell("READY=1")
    asyncio.run(asyncio.wait_for(notifier.run(lambda: str(asked.append("status")), bool), 5))
    assert (asked, logs) == ([], [])


@pytest.mark.parametrize(
    ("pulses", "wanted"),
    [
        ([], False),
        ([Pulse("running", 100.0)], False),
        ([Pulse("running", 100.0 - STILL_S)], False),
        ([Pulse("running", 99.9 - STILL_S)], True),
        ([Pulse("running", 100.0), Pulse("running", 1.0)], True),
        ([Pulse("starting", 0.0), Pulse("abandoned", 1.0)], False),
    ],
    ids=repr,
)
def test_stuck(pulses: list[Pulse], wanted: bool) -> None:
    assert stuck(pulses, 100.0) is wanted


async def until_heard(sock: socket.socket, words: list[str]) -> list[list[str]]:
    """All that came up to and with a datagram."""
    found: list[list[str]] = []
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    async with asyncio.timeout(5):
        while words not in found:
            found.append((await loop.sock_recv(sock, 4096)).decode().split("\n"))
    return found


def test_the_watchdog_is_fed_only_while_alive(
    manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, sock = manager
    monkeypatch.setattr(notify, "AGAIN_S", 0.01)
    lives, status = True, "one"
    looks, enough, looked = 0, -1, asyncio.Event()

    def alive() -> bool:
        nonlocal looks
        looks += 1
        if looks == enough:
            looked.set()
        return lives

    async def scenario() -> None:
        nonlocal lives, status, enough
        notifier = Notifier(address, watchdog_s=0.02)
        task = asyncio.create_task(notifier.run(lambda: status, alive))
        assert await until_heard(sock, ["WATCHDOG=1"]) == [["STATUS=one"], ["WATCHDOG=1"]]
        lives, status = False, "two"
        await until_heard(sock, ["STATUS=two"])
        enough = looks + 5
        await asyncio.wait_for(looked.wait(), 5)
        assert waiting(sock) == []
        lives = True
        await until_heard(sock, ["WATCHDOG=1"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
