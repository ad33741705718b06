"""Servers for probes, on this machine's loopback: good ones, and bad ones of every kind."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def stream(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve TCP; gives the port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, LOOPBACK, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def saying(answer: bytes, seen: list[bytes] | None = None) -> Handler:
    """Make a handler that reads a request and answers with these bytes, then closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        writer.write(answer)
        await writer.drain()

    return handle


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side has gone."""
    while await reader.read(65536):
        pass


@asynccontextmanager
async def datagrams(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """Serve UDP; gives the port. ``answer`` None: none is sent."""

    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((LOOPBACK, 0))

        def serve() -> None:
            data, client = sock.recvfrom(65535)
            reply = answer(data)
            if reply is not None:
                sock.sendto(reply, client)

        loop.add_reader(sock, serve)
        try:
            yield sock.getsockname()[1]
        finally:
            loop.remove_reader(sock)


def free_port(kind: socket.SocketKind) -> int:
    """Return a port at which nobody listens."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def certificate(directory: Path, name: str, days: int = 1) -> ssl.SSLContext:
    """Make a self-signed certificate, ``cert.pem``; -1 day: expired. Returns the server's side."""
    cert, key, request = directory / "cert.pem", directory / "key.pem", directory / "request.pem"
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", *kind, *names, "-keyout", key, "-out", request)
    extensions = ["-copy_extensions", "copyall"]
    openssl("x509", "-req", "-in", request, "-signkey", key, *extensions, "-days", str(days),
            "-out", cert)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
