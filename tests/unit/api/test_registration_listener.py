"""The registration endpoint as a stranger finds it: TLS, and bytes that come slowly or never."""

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lbfwd.api import registration as module
from lbfwd.api.registration import listening
from lbfwd.config.fleet import Registration as Listener
from lbfwd.metrics.listener import bind
from tests.unit.api.test_registration import BODY, PATH, TOKEN, Enrolling
from tests.unit.health.servers import certificate, free_port

LONG_S = 20.0
GOOD = f"Authorization: Bearer {TOKEN}"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


def talk(directory: Path, say: Talk, highest: ssl.TLSVersion | None = None) -> Enrolling:
    """Have somebody talk to the listener; returns who was told."""
    certificate(directory, "lb1")
    told = Enrolling()
    listen = f"127.0.0.1:{free_port(socket.SOCK_STREAM)}"
    files = {"certificate_file": "cert.pem", "key_file": "key.pem"}
    tls = ssl.create_default_context(cafile=directory / "cert.pem")
    if highest:
        tls.set_ciphers("DEFAULT@SECLEVEL=0")
        tls.minimum_version, tls.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, highest

    async def main() -> None:
        async with listening(told, Listener(listen=listen, **files), directory, lambda: 0.0):
            host, _, port = listen.partition(":")
            async with asyncio.timeout(LONG_S):
                reader, writer = await asyncio.open_connection(
                    host, int(port), ssl=tls, server_hostname="lb1"
                )
                await say(reader, writer)
                writer.close()

    asyncio.run(main())
    return told


def request(*head: str, body: bytes = b"") -> bytes:
    lines = [f"PUT {PATH} HTTP/1.1", "Host: lb1", *head]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("said", [b"", b"PUT /v1", request("X-Slow: y")[:-2]])
def test_who_asks_nothing_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.2)

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        assert await reader.read() == b"", "the end, and nothing before"

    talk(tmp_path, say)


def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_S", 0.2)

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request(GOOD, "Content-Length: 1000", body=b'{"address": '))
        assert (await reader.readline()).split()[1] == b"408"

    assert talk(tmp_path, say).told == []


def test_a_body_that_is_broken_is_the_clients_fault(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = request(GOOD, "Content-Length: 5", "Content-Encoding: gzip", body=b"junk!")
        writer.write(head)
        assert (await reader.readline()).split()[1] == b"400"

    assert talk(tmp_path, say).told == []


def test_a_body_that_grows_is_refused_by_what_it_has_grown_to(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(BODY | {"x": " " * 1_000_000}).encode())
    assert len(packed) < module.LARGEST_BODY

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = request(GOOD, f"Content-Length: {len(packed)}", "Content-Encoding: gzip")
        writer.write(head + packed)
        assert (await reader.readline()).split()[1] == b"413"

    assert talk(tmp_path, say).told == []


def test_who_shows_no_token_keeps_no_connection(tmp_path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request("Content-Length: 0"))
        assert (await reader.readline()).split()[1] == b"403"
        await reader.read()  # to the end: it is the listener who ends it

    talk(tmp_path, say)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_old_tls_is_refused(tmp_path: Path) -> None:
    talked: list[Any] = []

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talked.append(writer.get_extra_info("ssl_object").version())

    talk(tmp_path, say, ssl.TLSVersion.TLSv1_2)
    with pytest.raises(OSError):  # noqa: PT011 - reset, or told why: it depends on who is first
        talk(tmp_path, say, ssl.TLSVersion.TLSv1_1)
    assert talked == ["TLSv1.2"]


def test_without_tls_nothing_is_answered(tmp_path: Path) -> None:
    certificate(tmp_path, "lb1")
    with bind("127.0.0.1:0") as sock:
        listen = f"127.0.0.1:{sock.getsockname()[1]}"

    async def main() -> bytes:
        files = Listener(listen=listen, certificate_file="cert.pem", key_file="key.pem")
        async with listening(Enrolling(), files, tmp_path, lambda: 0.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(listen.split(":")[1]))
            writer.write(request(GOOD, "Content-Length: 0"))
            answer = await reader.read()
            writer.close()
            return answer

    answer = asyncio.run(main())
    assert b"HTTP" not in answer
