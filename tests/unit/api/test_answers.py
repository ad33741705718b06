"""The admin socket's questions, who may ask, and clients that misbehave."""

import asyncio
import grp
import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from lbfwd.api.client import ApiError, request
from lbfwd.api.control import Control
from lbfwd.api.server import admin_socket
from lbfwd.flow import Flow
from lbfwd.supervisor.errors import SupervisorError
from lbfwd.supervisor.status import Status
from lbfwd.supervisor.trace import Trace
from lbfwd.tables import FlowCount, FlowKey
from tests.unit.api import traces
from tests.unit.api.values import HOP, status

QUESTION = "/v1/trace?protocol=tcp&source=198.51.100.7:40000&destination=192.0.2.10:80"
TRACE = traces.trace()
FLOWS: Mapping[FlowKey, FlowCount] = {
    ((HOP.gateway, "udp", 0), ("web", "a", HOP.gateway)): FlowCount(5, 2)
}


@dataclass
class Node:
    """``hold``: answers to ``status`` wait for it."""

    hold: threading.Event | None = None
    asked: list[Flow] = field(default_factory=list)
    answered: int = 0
    changes: object = None

    async def status(self) -> Status:
        if self.hold:
            await asyncio.to_thread(self.hold.wait, 20)
        self.answered += 1
        return status()

    async def trace(self, flow: Flow) -> Trace:
        self.asked.append(flow)
        return TRACE

    async def flows(self) -> Mapping[FlowKey, FlowCount]:
        return FLOWS


def served(
    node: Node, directory: Path, function: Callable[..., Any], *arguments: Any, group: str = ""
) -> Any:
    """Call it in a thread while the node's socket is served."""

    async def whole() -> Any:
        async with admin_socket(cast("Control", node), directory, group):
            return await asyncio.to_thread(function, *arguments)

    return asyncio.run(whole())


def get(path: Path, resource: str) -> Any:
    return json.loads(request(path / "admin.sock", "GET", resource))


@contextmanager
def connected(path: Path) -> Any:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(path / "admin.sock"))
        yield sock


def said(path: Path, data: bytes) -> bytes:
    """All that comes back for these bytes."""
    with connected(path) as sock:
        try:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_a_trace_is_asked_for_by_its_flow(tmp_path: Path) -> None:
    node = Node()
    body = served(node, tmp_path, get, tmp_path, QUESTION)
    assert [str(flow) for flow in node.asked] == ["tcp 198.51.100.7:40000 192.0.2.10:80"]
    assert body == json.loads(TRACE.model_dump_json())


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("/v1/trace", "protocol is missing"),
        (QUESTION.replace("&destination=192.0.2.10:80", ""), "destination is missing"),
        (QUESTION + "&via=x", "'via': no such parameter"),
        (QUESTION.replace("tcp", "gre"), "protocol 'gre': must be one of"),
        (QUESTION.replace(":80", ""), "destination '192.0.2.10': tcp needs a port"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    tmp_path: Path, question: str, reason: str
) -> None:
    node = Node()
    with pytest.raises(ApiError, match=reason):
        served(node, tmp_path, get, tmp_path, question)
    assert not node.asked


def test_flows_are_counted_by_service_and_backend(tmp_path: Path) -> None:
    (row,) = served(Node(), tmp_path, get, tmp_path, "/v1/flows")["flows"]
    assert (row["vip"], row["protocol"], row["port"]) == ("10.0.0.1", "udp", None)
    assert (row["pool"], row["backend"], row["live"], row["closing"]) == ("web", "a", 5, 2)


def test_what_there_is_is_listed_and_documented(tmp_path: Path) -> None:
    body = served(Node(), tmp_path, get, tmp_path, "/v1")
    routes = {(route["method"], route["path"]) for route in body["routes"]}
    assert {("GET", "/v1"), ("GET", "/v1/status"), ("GET", "/v1/trace")} <= routes
    assert all(route["does"] for route in body["routes"])
    text = (Path(__file__).parents[3] / "docs/api.md").read_text()
    assert [f"{m} {p}" for m, p in sorted(routes) if f"`{m} {p}`" not in text] == []


def test_a_group_may_use_the_socket(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    found = served(Node(), tmp_path, os.stat, tmp_path / "admin.sock", group=group)
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_gid == os.getegid()


def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SupervisorError, match=r'group = "no-such-group": .* no such group'):
        served(Node(), tmp_path, get, tmp_path, "/v1/status", group="no-such-group")


NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: asks as another user")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that every user may look into, as the runtime directory is."""
    with tempfile.TemporaryDirectory(prefix="lbfwd-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def get_as(gid: int, path: Path, resource: str) -> Any:
    """Ask as nobody, in this group only. It is the whole process for a moment."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(NOBODY)
    try:
        return get(path, resource)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@needs_root
def test_a_member_of_the_group_may_ask(open_directory: Path) -> None:
    daemon = grp.getgrnam("daemon").gr_gid
    where = daemon, open_directory, "/v1/status"
    assert served(Node(), open_directory, get_as, *where, group="daemon")["generation"] == 42


@needs_root
@pytest.mark.parametrize(
    ("group", "reason"),
    [("daemon", "permission denied: ask for membership in group daemon"),
     ("", "permission denied: only root may use it, not user 65534")],
)  # fmt: skip
def test_who_may_not_ask_is_told_who_may(open_directory: Path, group: str, reason: str) -> None:
    node, other = Node(), grp.getgrnam("mail").gr_gid
    with pytest.raises(ApiError, match=reason):
        served(node, open_directory, get_as, other, open_directory, "/v1/status", group=group)
    assert not node.answered


def test_a_client_that_goes_away_disturbs_nobody(tmp_path: Path) -> None:
    node = Node(hold=threading.Event())
    assert node.hold

    def leave() -> Any:
        assert node.hold
        with connected(tmp_path) as sock:
            sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: lbfwd\r\n\r\n")
        with connected(tmp_path) as sock:
            sock.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: lbfwd\r\nContent-Length: 99\r\n\r\n{")
        node.hold.set()
        return get(tmp_path, "/v1/status")

    with capture_logs() as logs:
        assert served(node, tmp_path, leave)["generation"] == 42
    assert logs == [], "it is no bug of ours"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["tls", "version", "length", "header", "line"],
)
def test_rubbish_is_refused_and_the_next_one_served(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def both() -> Any:
        return said(tmp_path, data), get(tmp_path, "/v1/status")

    with capture_logs() as logs:
        answer, body = served(Node(), tmp_path, both)
    assert {event["event"] for event in logs} <= {"request_refused"}
    assert not any("\n" in event["reason"] for event in logs)
    assert not caplog.records, "nothing but events goes to the log"
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4")
    assert body["generation"] == 42


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    [
        (b"", b'{"text": "\xff\xfe"}', b"Invalid JSON"),
        (b"Content-Type: text/plain; charset=klingon\r\n", b"{", b"Invalid JSON"),
        (b"Content-Encoding: gzip\r\n", b"{}", b"Can not decode content-encoding: gzip"),
    ],
    ids=["bytes", "charset", "encoding"],
)
def test_a_body_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, head: bytes, body: bytes, reason: bytes
) -> None:
    question = b"POST /v1/reload HTTP/1.1\r\nHost: lbfwd\r\nConnection: close\r\n" + head
    question += b"Content-Length: %d\r\n\r\n" % len(body) + body
    with capture_logs() as logs:
        answer = served(Node(), tmp_path, said, tmp_path, question)
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert b'{"error": "POST /v1/reload: body: ' in answer
    assert reason in answer
    assert {event["event"] for event in logs} <= {"request_refused"}


def test_a_body_that_is_too_large_is_refused(tmp_path: Path) -> None:
    length = 65 << 20
    head = "POST /v1/plan HTTP/1.1\r\nHost: lbfwd\r\nConnection: close\r\n"
    head += f"Content-Length: {length}\r\n\r\n"
    answer = served(Node(), tmp_path, said, tmp_path, head.encode() + bytes(length))
    assert b" 413 " in answer.partition(b"\r\n")[0]
    assert b"POST /v1/plan: Request Entity Too Large" in answer
