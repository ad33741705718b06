"""Where backends register: HTTPS, a listener of its own, nothing else behind it.

``PUT``, ``GET``, ``DELETE /v1/backends/POOL/NAME`` with ``Authorization: Bearer TOKEN``;
``?address=ADDRESS`` with DELETE. A PUT is a sign of life as well: the lease begins anew.
docs/registration.md.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import BaseModel

from lbfwd.api.respond import errors_as_json, json_response, server_log
from lbfwd.config.fleet import Registration as Listener
from lbfwd.config.key import KeyFileError
from lbfwd.fleet.registration import (
    LEASE_S,
    Registration,
    RegistrationError,
    View,
    is_token,
    named,
    parse,
)
from lbfwd.fleet.tls import load_identity
from lbfwd.health.standing import BackendKey
from lbfwd.metrics.listener import bind
from lbfwd.supervisor import log
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import SupervisorError

LARGEST_BODY = 4096
STOP_S = 1.0
QUIET_S = 20.0  # so long a connection may be without a request; `join` lets one go after 15
BODY_S = 10.0
REQUESTS_S = 10.0  # of one address; a backend of ten pools with the shortest lease needs 15
BURST = 100
MOST_ADDRESSES = 4096
LOG_S = 10.0
SCHEME = "Bearer "

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Enrolling(Protocol):
    """Who takes registrations up. Each raises RegistrationError: refused, and why."""

    async def put(self, key: BackendKey, said: Registration, lease_s: int) -> View:
        """Take up a registration, or the sign of life of one."""

    async def remove(self, key: BackendKey, address: str) -> None:
        """Take the registration of an address back."""

    async def view(self, key: BackendKey) -> View:
        """Return what this node makes of a registration."""

    async def tokens(self, pool: str) -> Sequence[str]:
        """Return the tokens of a pool; none: nobody can register there."""


class Meter:
    """Counts requests by address: so many a second on the average, so many at once. Times: s."""

    def __init__(self) -> None:
        """Know nobody."""
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, address: str, now: float) -> bool:
        """Count a request; returns whether it may pass."""
        left, then = self._left.pop(address, (float(BURST), now))
        left = min(BURST, left + (now - then) * REQUESTS_S)
        admitted = left >= 1
        self._left[address] = (left - admitted, now)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)  # who has not asked for the longest time
        return admitted


class _TokenError(RegistrationError):
    """Whoever asks does not know the token."""


class _Strangers:
    """Logs who shows a wrong token: the latest, once in ``LOG_S`` at most. Times: s."""

    def __init__(self) -> None:
        self._tries, self._quiet_until = 0, 0.0

    def note(self, address: str, pool: str, now: float) -> None:
        self._tries += 1
        if now >= self._quiet_until:
            facts = {"address": address, "pool": pool, "tries": self._tries}
            log.get().warning("registration_unauthorized", **facts)
            self._tries, self._quiet_until = 0, now + LOG_S


class _Lease(BaseModel):
    lease_s: int = 10


def application(enrolling: Enrolling, clock: Callable[[], float]) -> web.Application:
    """Return all routes. ``clock``: seconds, for limits."""
    made = web.Application(
        middlewares=[errors_as_json, _limited(Meter(), clock)], client_max_size=LARGEST_BODY
    )

    async def put(request: web.Request) -> web.Response:
        key = await _admitted(request, enrolling)
        body = await _body(request)
        return json_response(await enrolling.put(key, parse(body), _lease_s(body)))

    async def get(request: web.Request) -> web.Response:
        return json_response(await enrolling.view(await _admitted(request, enrolling)))

    async def delete(request: web.Request) -> web.Response:
        key = await _admitted(request, enrolling)
        await enrolling.remove(key, request.query.get("address", ""))
        return json_response({})

    for method, handler in (("PUT", put), ("GET", get), ("DELETE", delete)):
        made.router.add_route(method, "/v1/backends/{pool}/{name}", handler)
    return made


def _limited(meter: Meter, clock: Callable[[], float]) -> Middleware:
    """Return what lets no address ask more often than it may, and answers refusals."""
    strangers = _Strangers()

    @web.middleware
    async def limited(request: web.Request, handler: Handler) -> web.StreamResponse:
        address = request.remote or ""
        if not meter.admits(address, clock()):
            reason = f"more than {REQUESTS_S:g} requests a second from {request.remote}"
            return json_response({"error": reason}, 429)
        try:
            return await handler(request)
        except RegistrationError as error:
            if isinstance(error, _TokenError):
                strangers.note(address, request.match_info["pool"], clock())
            refusal = json_response({"error": str(error)}, 403)
            refusal.force_close()  # who knows no token holds no connection
            return refusal

    return limited


async def _admitted(request: web.Request, enrolling: Enrolling) -> BackendKey:
    """Return who is meant. Raises RegistrationError: there can be no such name; or _TokenError."""
    key = named(request.match_info["pool"], request.match_info["name"])
    shown = request.headers.get("Authorization", "")
    tokens = await enrolling.tokens(key[0])
    if not shown.startswith(SCHEME) or not is_token(shown.removeprefix(SCHEME), tokens):
        # To whom it is not known which pools there are it is not said.
        raise _TokenError(
            f'pool "{key[0]}": the token is not that of its token_file, or backends cannot register'
            " there ([pool.register])"
        )
    return key


async def _body(request: web.Request) -> bytes:
    """Return the body. Raises HTTPException: it is too large, too slow, or broken."""
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError as error:  # it is not encoded as its head says
        raise web.HTTPBadRequest(text=f"body: {' '.join(str(error).split())}") from None


def _lease_s(body: bytes) -> int:
    try:
        lease_s = _Lease.model_validate_json(body).lease_s
    except ValueError:
        lease_s = 0
    if lease_s not in LEASE_S:
        raise RegistrationError(f"lease_s: {LEASE_S[0]} to {LEASE_S[-1]} seconds")
    return lease_s


@asynccontextmanager
async def listening(
    enrolling: Enrolling, listener: Listener, directory: Path, clock: Callable[[], float]
) -> AsyncIterator[None]:
    """Listen where ``[registration]`` says, or nowhere. Raises SupervisorError.

    ``directory``: where its relative paths begin.
    """
    if not listener.listen:
        yield
        return
    tls = await in_thread(None, _tls, listener, directory)
    runner = web.AppRunner(
        application(enrolling, clock),
        access_log=None,
        logger=server_log(),
        shutdown_timeout=STOP_S,
        keepalive_timeout=QUIET_S,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, bind(listener.listen), ssl_context=tls).start()
    except OSError as error:
        await runner.cleanup()
        reason = f'[registration] listen = "{listener.listen}": {error.strerror}'
        raise SupervisorError(reason) from error
    log.get().info("registration_listening", listen=listener.listen)
    try:
        yield
    finally:
        await runner.cleanup()


def _tls(listener: Listener, directory: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        load_identity(tls, directory / listener.certificate_file, directory / listener.key_file)
    except KeyFileError as error:
        raise SupervisorError(f'[registration] key_file = "{listener.key_file}": {error}') from None
    except OSError as error:  # ssl.SSLError is one
        files = f'certificate_file = "{listener.certificate_file}", key_file'
        reason = error.strerror or str(error)
        raise SupervisorError(f'[registration] {files} = "{listener.key_file}": {reason}') from None
    return tls
