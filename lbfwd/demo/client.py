"""The demo's client, a process in its own namespace: ``python -m lbfwd.demo.client VERB``.

``requests`` asks the VIPs of both families in turn, each time on a new connection, until it is
stopped. ``upload`` and ``download`` do one large transfer a family. All print JSON, an object a
line.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import aiohttp

from lbfwd.demo.payload import digest, payload
from lbfwd.demo.server import NAME_HEADER
from lbfwd.demo.topology import VIPS

REQUESTS_PER_S = 100
REQUEST_TIMEOUT_S = 5
TRIES = 2
TRANSFER_TIMEOUT_S = 30
TRANSFER_BYTES = 20_000_000
URLS = {4: f"http://{VIPS[4]}", 6: f"http://[{VIPS[6]}]"}


@dataclass(frozen=True)
class Answer:
    """One request. Times: CLOCK_MONOTONIC, s. ``error`` is empty when it was answered."""

    started: float
    ended: float
    family: int
    tries: int
    backend: str = ""
    error: str = ""


@dataclass(frozen=True)
class Transfer:
    """One large transfer; ``good``: what arrived has the checksum of what was sent."""

    direction: str
    family: int
    size: int
    seconds: float
    backend: str = ""
    good: bool = False
    error: str = ""


def session(timeout_s: float) -> aiohttp.ClientSession:
    """Return a session that makes a new connection for each request."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    return aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s)
    )


async def ask(http: aiohttp.ClientSession, family: int) -> Answer:
    """Ask who answers for the VIP; when the connection fails, once more, as browsers do."""
    started = time.monotonic()
    tries = 1
    backend, error = await attempt(http, family)
    while error and tries < TRIES:
        tries += 1
        backend, error = await attempt(http, family)
    return Answer(started, time.monotonic(), family, tries, backend, error)


async def attempt(http: aiohttp.ClientSession, family: int) -> tuple[str, str]:
    """Ask once. Returns the name of the backend that answered, and why none did."""
    try:
        async with http.get(URLS[family]) as response:
            response.raise_for_status()
            return response.headers[NAME_HEADER], ""
    except (aiohttp.ClientError, TimeoutError, KeyError) as problem:
        return "", describe(problem)


def describe(problem: Exception) -> str:
    """Return an exception as text; that of a time-out says nothing by itself."""
    return f"{type(problem).__name__}: {problem}"


async def ask_forever() -> None:
    """Ask at a steady rate, whether or not earlier requests have been answered."""
    async with session(REQUEST_TIMEOUT_S) as http, asyncio.TaskGroup() as pending:
        async for family in paced(1 / REQUESTS_PER_S):
            pending.create_task(ask(http, family)).add_done_callback(
                lambda task: report(task.result())
            )


async def paced(interval_s: float) -> AsyncIterator[int]:
    """Yield 4 and 6 in turn, one each interval; what came late is not made up for."""
    turn = time.monotonic()
    while True:
        for family in VIPS:
            yield family
            turn = max(turn + interval_s, time.monotonic())
            await asyncio.sleep(turn - time.monotonic())


async def transfer(http: aiohttp.ClientSession, direction: str, family: int) -> Transfer:
    """Send or fetch a payload of our own and compare checksums."""
    started = time.monotonic()
    backend, good, error = "", False, ""
    try:
        backend, found = await DIRECTIONS[direction](http, family)
        good = found == digest(payload(family, TRANSFER_BYTES))
    except (aiohttp.ClientError, TimeoutError, KeyError) as problem:
        error = describe(problem)
    seconds = time.monotonic() - started
    return Transfer(direction, family, TRANSFER_BYTES, seconds, backend, good, error)


async def upload(http: aiohttp.ClientSession, family: int) -> tuple[str, str]:
    """Send the payload. Returns the backend's name and the digest that it found."""
    data = payload(family, TRANSFER_BYTES)
    async with http.post(f"{URLS[family]}/digest", data=data) as response:
        response.raise_for_status()
        return response.headers[NAME_HEADER], await response.text()


async def download(http: aiohttp.ClientSession, family: int) -> tuple[str, str]:
    """Fetch the payload. Returns the backend's name and the digest of what came."""
    query = {"seed": family, "size": TRANSFER_BYTES}
    async with http.get(f"{URLS[family]}/blob", params=query) as response:
        response.raise_for_status()
        return response.headers[NAME_HEADER], digest(await response.read())


DIRECTIONS = {"upload": upload, "download": download}


async def transfer_all(direction: str) -> None:
    """Do the transfer of each family, one after the other."""
    async with session(TRANSFER_TIMEOUT_S) as http:
        for family in VIPS:
            report(await transfer(http, direction, family))


def report(result: Answer | Transfer) -> None:
    """Print a result as one line of JSON."""
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(ask_forever() if sys.argv[1] == "requests" else transfer_all(sys.argv[1]))
