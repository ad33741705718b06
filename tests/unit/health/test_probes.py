"""Probes of real sockets on loopback: what good and bad targets are called, and nothing hangs."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lbfwd.health.monitor import asker, outcome_of
from lbfwd.health.outcome import Outcome
from lbfwd.health.probe_http import BODY_BYTES, tls_context
from lbfwd.health.question import Ask, Dns, Http, Question, Tcp, Udp
from lbfwd.health.route import Direct
from tests.unit.health import servers
from tests.unit.health.servers import LOOPBACK, datagrams, free_port, saying, silent, stream

TIMEOUT_MS = 500
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Server = AbstractAsyncContextManager[int]


def plain(**changes: Any) -> Http:
    return Http(**({"path": "/", "host": "", "statuses": ((200, 299),), "body": b""} | changes))


def question(ask: Ask, port: int) -> Question:
    return Question(ip_address(LOOPBACK), port, None, ask, 1000, TIMEOUT_MS)


async def probed(ask: Ask, port: int) -> Outcome:
    asked = question(ask, port)
    async with asker(asked, Direct(asked.target)) as once:
        return await outcome_of(asked, once)


def outcome(ask: Ask, server: Server) -> tuple[str, str]:
    async def run() -> Outcome:
        async with server as port:
            return await probed(ask, port)

    tls_context.cache_clear()
    found = uvloop.run(run())  # as the supervisor does
    assert 0 < found.duration_s < 10
    return found.name, found.detail


@asynccontextmanager
async def nobody(kind: socket.SocketKind = socket.SOCK_STREAM) -> AsyncIterator[int]:
    yield free_port(kind)


@asynccontextmanager
async def full_backlog() -> AsyncIterator[int]:
    """A listener that accepts nothing and whose queue is full: the next SYN gets no answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield listener.getsockname()[1]


def test_tcp_connects() -> None:
    assert outcome(Tcp(), stream(silent)) == ("passed", "")


def test_tcp_closes_with_a_reset() -> None:
    ended: list[BaseException | bytes] = []

    async def watch(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            ended.append(await reader.read(1))
        except ConnectionResetError as error:
            ended.append(error)

    async def run() -> None:
        async with stream(watch) as port, asyncio.timeout(10):
            assert (await probed(Tcp(), port)).passed
            while not ended:  # noqa: ASYNC110 - the kernel makes it true
                await asyncio.sleep(0.005)

    asyncio.run(run())
    assert isinstance(ended[0], ConnectionResetError)


@pytest.mark.parametrize("ask", [Tcp(), plain()])
def test_nobody_listens(ask: Ask) -> None:
    assert outcome(ask, nobody()) == ("refused", "connection refused")


@pytest.mark.parametrize("ask", [Tcp(), plain()])
def test_no_answer_to_a_connection(ask: Ask) -> None:
    assert outcome(ask, full_backlog()) == ("timeout", "no answer within 500 ms")


def test_http_asks_what_it_was_told() -> None:
    seen: list[bytes] = []
    ask = plain(path="/a%20b?c=d", host="www.example.com:81")
    assert outcome(ask, stream(saying(OK, seen))) == ("passed", "")
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == "GET /a%20b?c=d HTTP/1.1"
    assert "Host: www.example.com:81" in lines
    assert "User-Agent: lbfwd-health" in lines
    assert "Accept-Encoding: identity" in lines
    assert not any(line.startswith("Cookie") for line in lines)


def test_each_http_probe_has_a_connection_of_its_own_and_keeps_no_cookie() -> None:
    seen: list[bytes] = []
    connections: list[tuple[str, int]] = []
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\nConnection: keep-alive\r\n\r\n", 1)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer.get_extra_info("peername"))
        while True:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)

    async def run() -> None:
        async with stream(handle) as port:
            asked = question(plain(), port)
            async with asker(asked, Direct(asked.target)) as once:
                for _ in range(3):
                    assert (await outcome_of(asked, once)).passed

    uvloop.run(run())
    assert len(set(connections)) == len(seen) == 3
    assert not any(b"Cookie" in request for request in seen)


def test_the_status_has_to_be_in_the_set() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    assert outcome(plain(), stream(saying(moved))) == ("wrong_status", "status 302")
    assert outcome(plain(statuses=((200, 200), (302, 303))), stream(saying(moved)))[0] == "passed"


def test_a_redirect_loop_is_one_request() -> None:
    seen: list[bytes] = []
    moved = b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    assert outcome(plain(), stream(saying(moved, seen))) == ("wrong_status", "status 301")
    assert len(seen) == 1


def test_the_body_has_to_hold_the_text_within_what_is_read() -> None:
    def body(data: bytes) -> Server:
        return stream(saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data))

    ask = plain(body=b"healthy")
    assert outcome(ask, body(b"it is healthy!"))[0] == "passed"
    assert outcome(ask, body(b"it is not")) == ("wrong_body", "the first 9 bytes do not hold it")
    assert outcome(ask, body(b"x" * (BODY_BYTES - 7) + b"healthy"))[0] == "passed"
    assert outcome(ask, body(b"x" * BODY_BYTES + b"healthy")) == (
        "wrong_body", f"the first {BODY_BYTES} bytes do not hold it",
    )  # fmt: skip


def test_an_endless_body_is_read_no_further() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    assert outcome(plain(body=b"y"), stream(endless))[0] == "wrong_body"
    assert sent < 64 << 20


def test_a_body_that_never_comes_is_a_timeout() -> None:
    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
        await silent(reader, writer)

    assert outcome(plain(body=b"y"), stream(lazy))[0] == "timeout"
    assert outcome(plain(), stream(lazy))[0] == "passed", "nobody wants the body"


@pytest.mark.parametrize(
    ("answer", "name", "detail"),
    [
        (b"", "closed", "connection closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_answer", "not HTTP"),
        (bytes(range(256)) * 16, "bad_answer", "not HTTP"),
        (b"HTTP/1.1 banana\r\n\r\n", "bad_answer", "not HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
            "headers_too_large",
            "a line of more than 8190 bytes",
        ),
        (
            b"HTTP/1.1 200 OK\r\n" + b"X: %s\r\n" % (b"x" * 100) * 10_000 + b"\r\n",
            "headers_too_large",
            "more than 128 headers",
        ),
    ],
    ids=["nothing", "ssh", "bytes", "no status", "a long header", "many headers"],
)
def test_bad_answers_over_http(answer: bytes, name: str, detail: str) -> None:
    assert outcome(plain(), stream(saying(answer))) == (name, detail)


def test_a_server_that_hangs_is_a_timeout() -> None:
    assert outcome(plain(), stream(silent)) == ("timeout", "no answer within 500 ms")


def test_a_server_that_drips_is_a_timeout() -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in OK * 100:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)  # each byte comes in time, all of them do not

    assert outcome(plain(), stream(drip))[0] == "timeout"


def test_a_reset_is_a_reset() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert outcome(plain(), stream(reset)) == ("reset", "connection reset")


def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = servers.certificate(tmp_path, "www.example.com")
    ask = plain(tls=True, sni="www.example.com", verify=True)
    name, detail = outcome(ask, stream(saying(OK), server))
    assert (name, detail) == ("bad_certificate", "self-signed certificate")
    unverified = plain(tls=True, verify=False)
    assert outcome(unverified, stream(saying(OK), server))[0] == "passed"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert outcome(ask, stream(saying(OK), server)) == ("passed", "")
    other = plain(tls=True, sni="other.example.com", verify=True)
    name, detail = outcome(other, stream(saying(OK), server))
    assert name == "bad_certificate"
    assert "other.example.com" in detail


def test_https_says_whom_it_wants(tmp_path: Path) -> None:
    server = servers.certificate(tmp_path, "www.example.com")
    names: list[str | None] = []
    server.sni_callback = lambda _sock, name, _context: names.append(name)
    assert outcome(plain(tls=True, sni="a.example"), stream(saying(OK), server))[0] == "passed"
    assert names == ["a.example"]


def test_an_expired_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = servers.certificate(tmp_path, "www.example.com", days=-1)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    ask = plain(tls=True, sni="www.example.com", verify=True)
    name, detail = outcome(ask, stream(saying(OK), server))
    assert (name, detail) == ("bad_certificate", "certificate has expired")


def test_no_tls_where_tls_is_asked() -> None:
    assert outcome(plain(tls=True), stream(saying(OK)))[0] in ("tls_failed", "timeout")

    async def shout(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await silent(_reader, writer)

    assert outcome(plain(tls=True), stream(shout))[0] == "tls_failed"


def test_udp() -> None:
    ask = Udp(b"ping", b"ong")
    assert outcome(ask, datagrams(lambda data: data.replace(b"i", b"o"))) == ("passed", "")
    assert outcome(ask, datagrams(lambda _: b"what?")) == (
        "wrong_body", "the answer of 5 bytes does not hold expect",
    )  # fmt: skip
    assert outcome(ask, datagrams(lambda _: None)) == ("timeout", "no answer within 500 ms")
    assert outcome(ask, nobody(socket.SOCK_DGRAM)) == ("refused", "connection refused")


def test_udp_without_expectation_is_up_unless_it_is_refused() -> None:
    seen: list[bytes] = []
    ask = Udp(b"", b"")
    assert outcome(ask, datagrams(seen.append)) == ("passed", "")
    assert seen == [b""], "an empty datagram is sent, too"
    assert outcome(ask, datagrams(lambda _: b"x"))[0] == "passed"
    assert outcome(ask, nobody(socket.SOCK_DGRAM)) == ("refused", "connection refused")


def test_dns() -> None:
    ask = Dns("www.example.com", 1, 0)
    good = datagrams(lambda data: data[:2] + b"\x81\x80" + data[4:])
    assert outcome(ask, good) == ("passed", "")
    assert outcome(ask, datagrams(lambda data: data))[0] == "bad_answer", "an echo is no answer"
    failing = datagrams(lambda data: data[:2] + b"\x81\x82" + data[4:])
    assert outcome(ask, failing) == ("wrong_rcode", "servfail, not noerror")
    assert outcome(ask, datagrams(lambda _: None))[0] == "timeout"


def test_a_timeout_that_is_noticed_too_late_is_called_so() -> None:
    async def busy(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        time.sleep(TIMEOUT_MS / 1000 + 0.3)  # noqa: ASYNC251 - the loop that asks is this one

    name, detail = outcome(plain(), stream(busy))
    assert name == "late"
    assert "too busy" in detail


def test_what_cannot_be_sent_says_so() -> None:
    class NoWay:
        def bind(self, _kind: socket.SocketKind) -> socket.socket:
            raise OSError(16, "the tunnel is being set up")

    async def run(ask: Ask) -> Outcome:
        asked = question(ask, 1)
        async with asker(asked, NoWay()) as once:
            return await outcome_of(asked, once)

    for ask in (Tcp(), plain(), Udp(b"", b""), Dns(".", 1, 0)):
        found = asyncio.run(run(ask))
        assert (found.name, found.detail) == ("not_sent", "the tunnel is being set up")
