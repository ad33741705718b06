"""A client of etcd over its JSON gateway: keys, watches, leases; several endpoints, tried in turn.

No call waits for ever: one that gets no answer from any endpoint ends in ``EtcdUnreachable``; only
``watch`` and ``follow`` go on, whatever becomes of etcd, until etcd is there again.
"""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp

from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.key import KeyFileError, read_secret
from lbfwd.fleet import etcd_wire as wire
from lbfwd.fleet.etcd_wire import (
    Answered,
    Behind,
    Body,
    Change,
    EtcdConflict,
    EtcdError,
    EtcdLeaseLost,
    EtcdUnreachable,
    Value,
)
from lbfwd.fleet.tls import load_identity

CONNECT_S = 2.0
ANSWER_S = 5.0
IDLE_S = 10.0  # so long a watch may be silent before we ask whether etcd is still there
NO_ANSWER = f"no answer within {ANSWER_S:g} s"
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_ELSEWHERE = {wire.UNAVAILABLE, wire.DEADLINE_EXCEEDED}  # no leader, a lost one: ask another member
# What was asked for certainly did not happen.
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
# What reading an answer raises that is JSON of any kind, or none.
_NONSENSE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """How etcd lets us in. ``password`` is for ``user``; both empty: without."""

    tls: ssl.SSLContext | None = None
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Access({self.user!r})"


def read_access(settings: EtcdSettings, directory: Path) -> Access:
    """Read the files that ``[etcd]`` names, relative to a directory; blocks. Raises EtcdError."""
    key, path = "ca_file", settings.ca_file
    try:
        tls = ssl.create_default_context(cafile=directory / path if path else None)
        if settings.certificate_file:
            key, path = "certificate_file", settings.certificate_file
            _show_certificate(tls, directory / path, directory, settings.key_file)
        key, path = "password_file", settings.password_file
        password = read_secret(directory / path) if path else ""
    except (OSError, KeyFileError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error)
        raise EtcdError(f'[etcd] {key} = "{path}": {reason}') from None
    return Access(tls, settings.user, password)


def _show_certificate(tls: ssl.SSLContext, file: Path, directory: Path, key_file: str) -> None:
    try:
        load_identity(tls, file, directory / key_file)
    except KeyFileError as error:
        raise EtcdError(f'[etcd] key_file = "{key_file}": {error}') from None


class Etcd:
    """The keys under a prefix; keys here are relative to it.

    ``problem``: why etcd was not reached the last time; empty: it was.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: EtcdSettings,
        access: Access,
        told: Callable[[str], None] = lambda _problem: None,
    ) -> None:
        """Use ``connect``."""
        self.problem = ""
        self._session = session
        self._prefix = settings.prefix
        self._endpoints = [endpoint.rstrip("/") for endpoint in settings.endpoints]
        self._access = access
        self._told = told
        self._token = ""

    async def get(self, key: str) -> Value | None:
        """Return what a key holds and its revision; None: there is no such key."""
        question = {"key": self._key(key)}
        return (await self._call("/v3/kv/range", question, self._values)).get(key)

    async def get_prefix(self, prefix: str) -> tuple[dict[str, Value], int]:
        """Return all keys with a prefix, and the revision at which they were so."""

        def read(answer: Body) -> tuple[dict[str, Value], int]:
            return self._values(answer), wire.revision_of(answer)

        return await self._call("/v3/kv/range", wire.prefix_range(self._prefix + prefix), read)

    async def put(
        self, key: str, value: str, lease: int | None = None, only_if: int | None = None
    ) -> int:
        """Write and return the new revision.

        ``only_if``: only while the key is of this revision (0: while there is none), or it raises
        EtcdConflict. When EtcdUnreachable is raised it may have been written or not.
        """
        put: Body = {"key": self._key(key), "value": wire.encoded(value)}
        if lease is not None:
            put["lease"] = str(lease)
        if only_if is None:
            return await self._call("/v3/kv/put", put, wire.revision_of)
        revision = await self._call(
            "/v3/kv/txn", wire.put_if(put, only_if), wire.revision_if_put, again=False
        )
        if revision is None:
            raise EtcdConflict(f"{self._prefix}{key}: is not of revision {only_if} any more")
        return revision

    async def delete(self, key: str) -> bool:
        """Take a key away; returns whether there was one."""
        deleted = await self._call(
            "/v3/kv/deleterange", {"key": self._key(key)}, wire.number("deleted")
        )
        return deleted > 0

    async def grant(self, ttl_s: int) -> int:
        """Return a new lease, which runs out after so long without ``keep_alive``."""
        return await self._call("/v3/lease/grant", {"TTL": str(ttl_s)}, wire.number("ID"))

    async def keep_alive(self, lease: int) -> int:
        """Make a lease last for its whole time again; returns that, in seconds.

        Raises EtcdLeaseLost when it has run out.
        """
        left_s = await self._call("/v3/lease/keepalive", {"ID": str(lease)}, wire.lease_left_s)
        if left_s <= 0:
            raise EtcdLeaseLost(f"lease {lease:x} has run out")
        return left_s

    async def revoke(self, lease: int) -> None:
        """End a lease; the keys under it go at once. One that is gone already is no error."""
        try:
            await self._call("/v3/lease/revoke", {"ID": str(lease)}, wire.revision_of)
        except Answered as error:
            if error.code != wire.NOT_FOUND:
                raise

    async def follow(self, prefix: str) -> AsyncGenerator[Mapping[str, Value], None]:
        """Yield all keys with a prefix, now and after each change, for ever. Close it (aclosing).

        When several changes have been missed, what they led to is yielded once.
        """
        known: dict[str, Value] = {}
        async with aclosing(self.watch(prefix)) as changes:
            async for change in changes:
                merged = {} if change.whole else dict(known)
                merged.update(change.values)  # type: ignore[arg-type]
                known = {key: value for key, value in merged.items() if value is not None}
                yield known

    async def watch(self, prefix: str, from_revision: int = 0) -> AsyncGenerator[Change, None]:
        """Yield what changes under a prefix from a revision on, for ever. Close it (aclosing).

        0: begins with all that is there. Outlives lost servers: a ``whole`` change takes the place
        of what could not be seen meanwhile, and of what cannot be told any more (compaction).
        """
        pause_s, begin = FIRST_PAUSE_S, from_revision
        while True:
            try:
                async with aclosing(self._changes(prefix, begin)) as changes:
                    async for change in changes:
                        begin = change.revision + 1
                        if not change.whole:  # which does not say that watching works
                            pause_s = FIRST_PAUSE_S
                        yield change
            except Behind:
                begin = 0
            except EtcdError as error:
                self._note(str(error))
                begin = 0  # it may come back with other data, and by then be further than we are
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _changes(self, prefix: str, begin: int) -> AsyncGenerator[Change, None]:
        """Yield what one connection tells. Raises EtcdError when it is lost."""
        if begin == 0:
            found, revision = await self.get_prefix(prefix)
            yield Change(revision, found, whole=True)
            begin = revision + 1
        keys = wire.prefix_range(self._prefix + prefix)
        await self._check(keys, begin, self._endpoints)  # finds a good endpoint, and a token
        endpoint = self._endpoints[0]
        create = {"create_request": keys | {"start_revision": str(begin)}}
        async with self._post(endpoint, "/v3/watch", create) as response:
            lines = self._lines(response, lambda: self._check(keys, begin, [endpoint]))
            async with aclosing(lines):
                async for line in lines:
                    change = wire.change(wire.stream_result(line), self._prefix)
                    if change is not None:
                        begin = change.revision + 1
                        yield change
        raise EtcdUnreachable(f"{endpoint}: the watch was ended")

    @staticmethod
    async def _lines(
        response: aiohttp.ClientResponse, check: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[bytes, None]:
        """Yield a watch's messages; where none comes for long, ``check`` that etcd is there."""
        lines = wire.Lines(MAX_ANSWER_BYTES)
        while not response.content.at_eof():
            try:
                async with asyncio.timeout(IDLE_S):
                    data = await response.content.readany()
            except TimeoutError:
                await check()
                continue
            for line in lines.feed(data):
                yield line

    async def _check(self, keys: Body, begin: int, endpoints: Sequence[str]) -> None:
        """Ask for something that needs a leader. Raises EtcdError; Behind: etcd was restored."""
        question = keys | {"count_only": True}
        revision = await self._call("/v3/kv/range", question, wire.revision_of, endpoints=endpoints)
        if revision + 1 < begin:
            raise Behind("etcd has gone back to an older revision")

    async def _call(
        self,
        path: str,
        body: Body,
        read: Callable[[Body], T],
        *,
        again: bool = True,
        endpoints: Sequence[str] = (),
    ) -> T:
        """Ask one endpoint after another, the last good one first; ``read`` takes the answer.

        ``again``: it may be asked of another one when nobody knows whether it was carried out.
        """
        problems = []
        for endpoint in tuple(endpoints or self._endpoints):
            try:
                answer = await self._ask_with_token(endpoint, path, body, read)
            except EtcdUnreachable as error:
                problems.append(str(error))
                if not again and not isinstance(error.__cause__, _NOT_SENT):
                    break
                continue
            self._prefer(endpoint)
            return answer
        problem = "; ".join(problems)
        self._note(problem)
        raise EtcdUnreachable(problem)

    async def _ask_with_token(
        self, endpoint: str, path: str, body: Body, read: Callable[[Body], T]
    ) -> T:
        """Log in first where that is wanted, and again when the token has run out."""
        if self._access.user and not self._token:
            await self._log_in(endpoint)
        try:
            return await self._ask(endpoint, path, body, read)
        except Answered as error:
            stale = error.code == wire.UNAUTHENTICATED or "auth store is old" in str(error)
            if not self._access.user or not stale:
                raise
        await self._log_in(endpoint)
        return await self._ask(endpoint, path, body, read)

    async def _log_in(self, endpoint: str) -> None:
        self._token = ""
        login = {"name": self._access.user, "password": self._access.password}
        self._token = await self._ask(endpoint, "/v3/auth/authenticate", login, wire.token)

    async def _ask(self, endpoint: str, path: str, body: Body, read: Callable[[Body], T]) -> T:
        """Ask one endpoint. Raises Answered, or EtcdUnreachable where another may know more."""
        try:
            async with asyncio.timeout(ANSWER_S), self._post(endpoint, path, body) as response:
                return read(await _answer(response))
        except Answered as error:
            if error.code in _ELSEWHERE:
                raise EtcdUnreachable(f"{endpoint}: {error}") from error
            raise Answered(f"{endpoint}{path}: {error}", error.code) from None
        except TimeoutError:  # it came in part
            raise EtcdUnreachable(f"{endpoint}: {NO_ANSWER}") from None

    @asynccontextmanager
    async def _post(
        self, endpoint: str, path: str, body: Body
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Begin a request; its answer has begun. What goes wrong within becomes EtcdUnreachable."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = self._token
        data = io.BytesIO(json.dumps(body).encode())
        try:
            async with asyncio.timeout(ANSWER_S):
                response = await self._session.post(
                    endpoint + path, data=data, headers=headers, allow_redirects=False
                )
            async with response:
                yield response
        except (aiohttp.ClientError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error) or NO_ANSWER
            raise EtcdUnreachable(f"{endpoint}: {reason}") from error
        except _NONSENSE as error:
            raise EtcdUnreachable(f"{endpoint}: no answer of etcd's: {error!r:.100}") from error

    def _values(self, answer: Body) -> dict[str, Value]:
        return wire.values(answer, self._prefix)

    def _key(self, key: str) -> str:
        return wire.encoded(self._prefix + key)

    def _prefer(self, endpoint: str) -> None:
        self._endpoints.remove(endpoint)
        self._endpoints.insert(0, endpoint)
        self._note("")

    def _note(self, problem: str) -> None:
        before, self.problem = self.problem, problem
        if bool(before) != bool(problem):
            self._told(problem)


async def _answer(response: aiohttp.ClientResponse) -> Body:
    """Read an answer. Raises Answered or ValueError."""
    content = bytearray()
    async for data in response.content.iter_any():
        content += data
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
    answer: Body = json.loads(content)
    if response.status != 200:
        if "error" not in answer and "message" not in answer:  # before and since etcd 3.6
            raise ValueError(f"status {response.status}")
        raise wire.refusal(answer)
    wire.header(answer)  # any JSON object may have none of what is looked for
    return answer


@asynccontextmanager
async def connect(
    settings: EtcdSettings,
    directory: Path,
    told: Callable[[str], None] = lambda _problem: None,
) -> AsyncIterator[Etcd]:
    """Give a client of the etcd that ``[etcd]`` names; nothing is asked yet. Raises EtcdError.

    ``directory``: where relative paths begin. ``told``: called with what is wrong when etcd
    cannot be reached any more, and with an empty text when it is again.
    """
    access = await asyncio.to_thread(read_access, settings, directory)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    connector = aiohttp.TCPConnector(ssl=access.tls or True, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Etcd(session, settings, access, told)
