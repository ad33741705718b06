"""HTTP and HTTPS probes, by aiohttp: one request on a connection of its own."""

import asyncio
import socket
import ssl
from functools import cache
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from lbfwd.health.outcome import PASSED, Outcome, of_os_error, of_tls_error
from lbfwd.health.probe import stream
from lbfwd.health.question import Http, Question
from lbfwd.health.route import Route

BODY_BYTES = 65536
LINE_BYTES = 8190  # of the status line, and of each header
HEADERS = 128
AGENT = "lbfwd-health"


@cache
def tls_context(verify: bool) -> ssl.SSLContext:
    """Return a context; ``verify``: against this machine's certificate store. Blocks: it reads.

    All questions share it, for a store takes time and memory; ``tls_context.cache_clear`` has
    it read again.
    """
    if verify:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class HttpProbe:
    """Asks one question again and again."""

    def __init__(self, question: Question, ask: Http, route: Route) -> None:
        """Send nothing yet."""
        self._question = question
        self._ask = ask
        self._route = route
        scheme = "https" if ask.tls else "http"
        host = f"[{question.target}]" if question.target.version == 6 else str(question.target)
        self._url = URL(f"{scheme}://{host}:{question.port}{ask.path}", encoded=True)
        self._headers = {"Host": ask.host} if ask.host else {}
        self._tls: ssl.SSLContext | bool = True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if self._ask.tls:
            self._tls = await asyncio.to_thread(tls_context, self._ask.verify)
        connector = aiohttp.TCPConnector(
            force_close=True,  # never a stale connection
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(),  # none: the caller's covers all
            auto_decompress=False,  # what was compressed unasked stays so
            read_bufsize=BODY_BYTES,
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            max_headers=HEADERS,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session:
            await self._session.close()

    async def ask(self) -> Outcome:
        """Ask once. Raises OSError when the socket cannot be made."""
        try:
            return await self._request()
        except aiohttp.ClientResponseError as error:
            return _of_bad_response(error)
        except aiohttp.ClientError as error:
            return _of_client_error(error)

    async def _request(self) -> Outcome:
        assert self._session is not None  # noqa: S101 - used as a context
        request = self._session.get(
            self._url,
            headers=self._headers,
            allow_redirects=False,
            ssl=self._tls,
            server_hostname=self._ask.sni or None,
        )
        async with request as response:
            status = response.status
            if not any(low <= status <= high for low, high in self._ask.statuses):
                return Outcome("wrong_status", f"status {status}")
            if self._ask.body:
                return await self._look_into(response)
            response.close()  # with a reset: the body is nobody's business
        return PASSED

    async def _look_into(self, response: aiohttp.ClientResponse) -> Outcome:
        body = b""
        while len(body) < BODY_BYTES:
            chunk = await response.content.read(BODY_BYTES - len(body))
            if not chunk:
                break
            body += chunk
        response.close()
        if self._ask.body in body:
            return PASSED
        return Outcome("wrong_body", f"the first {len(body)} bytes do not hold it")

    def _socket(self, _address: Any) -> socket.socket:
        return stream(self._question, self._route)


def _of_bad_response(error: aiohttp.ClientResponseError) -> Outcome:
    # Which of its limits was exceeded, aiohttp tells by its text only.
    if error.message.startswith("Got more than"):
        return Outcome("headers_too_large", f"a line of more than {LINE_BYTES} bytes")
    if error.message.startswith("Too many headers"):
        return Outcome("headers_too_large", f"more than {HEADERS} headers")
    return Outcome("bad_answer", "not HTTP")


def _of_client_error(error: aiohttp.ClientError) -> Outcome:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return of_tls_error(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        return of_tls_error(cause) if isinstance(cause, ssl.SSLError) else of_os_error(cause)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Outcome("closed", "connection closed without an answer")
    if isinstance(error, OSError):  # ClientOSError: while the answer is awaited
        return of_os_error(error)
    return Outcome("bad_answer", "a broken answer")
