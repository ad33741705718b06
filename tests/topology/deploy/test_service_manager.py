"""What the real ``lbfwd run`` and ``lbfwd backend`` tell a service manager, in order."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Lab
from tests.topology.node.stage import CONFIG, START_S, Node, Stage

pytestmark = pytest.mark.topology


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's socket; processes that are started now are told of it."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(START_S)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        yield sock


def next_state(sock: socket.socket) -> str:
    """The next word about its state, such as READY=1; what else is told is passed."""
    while True:
        words = sock.recv(4096).decode().split("\n")
        states = [
            word for word in words if not word.startswith(("WATCHDOG=", "STATUS=", "EXTEND_"))
        ]
        if states:
            return states[0]


def until(sock: socket.socket, wanted: str) -> None:
    """Wait for a word."""
    while wanted not in sock.recv(4096).decode().split("\n"):
        pass


def test_a_node(manager: socket.socket, tmp_path: Path) -> None:
    with Lab() as lab:
        node = Node(Stage(lab).node, tmp_path, CONFIG)
        assert next_state(manager) == "READY=1"
        assert node.events("ready")
        until(manager, "STATUS=2 of 2 workers forward, generation 1")
        until(manager, "WATCHDOG=1")

        assert node.reload("no configuration").returncode == 1
        assert [next_state(manager), next_state(manager)] == ["RELOADING=1", "READY=1"]
        assert node.reload(CONFIG).returncode == 0
        assert [next_state(manager), next_state(manager)] == ["RELOADING=1", "READY=1"]

        assert node.stop() == 0
        assert next_state(manager) == "STOPPING=1"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            next_state(manager)  # nobody speaks after it, no worker either


def test_a_node_that_cannot_start_is_never_ready(manager: socket.socket, tmp_path: Path) -> None:
    with Lab() as lab:
        node = Node(lab.host("node"), tmp_path, CONFIG)
        assert node.process.wait(START_S) == 1
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_a_backend(manager: socket.socket, tmp_path: Path) -> None:
    with Lab() as lab:
        stage = Stage(lab)
        lbfwd = [sys.executable, "-m", "lbfwd.cli.main"]
        argv = [*lbfwd, "backend", "--vip", "192.0.2.20", "--node", "10.0.0.1"]
        with (tmp_path / "log").open("w") as log:
            process = stage.farm.start(*argv, stdout=log, stderr=log)
        assert next_state(manager) == "READY=1"
        until(manager, "WATCHDOG=1")
        process.terminate()
        assert process.wait(START_S) == 0
        assert next_state(manager) == "STOPPING=1"
