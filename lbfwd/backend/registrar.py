"""Where a backend registers: in etcd under a lease, or at each node over HTTPS.

``announce`` is called again and again, as a sign of life; it returns what nodes make of it.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import unquote, urlencode

import aiohttp
import structlog
from pydantic import ValidationError
from yarl import URL

from lbfwd.fleet.etcd import Etcd
from lbfwd.fleet.etcd_wire import EtcdConflict, EtcdError, EtcdLeaseLost
from lbfwd.fleet.registration import (
    BACKENDS,
    VIEWS,
    Registration,
    RegistrationError,
    View,
    dump,
    parse,
    place,
)
from lbfwd.health.standing import BackendKey

BEATS = 3
"""Signs of life in a lease. A node that hangs must not delay those to the others."""
UNHEARD_S = 5.0
"""A node that says nothing for so long is ``unknown``; a supervisor's successor is there before."""
ANSWER_S = 10.0
SILENT = "says nothing any more: it is gone, or etcd is out of its reach"
_REFUSED = (400, 403, 404, 413)

Said = Mapping[BackendKey, Registration]
Views = Mapping[BackendKey, Sequence[View]]

log = structlog.get_logger()


class LostError(Exception):
    """Nobody who could take the registration up was reached; the text says why."""


class Registrar(Protocol):
    """Tells others of this backend."""

    async def announce(self, said: Said) -> Views:
        """Register, or renew; a node that refuses says so in its view.

        Raises LostError, or RegistrationError when nothing was said: the name is another's.
        """

    async def withdraw(self, said: Said) -> None:
        """Take registrations back, as far as somebody is reached."""


class EtcdRegistrar:
    """In etcd: all pools under one lease."""

    def __init__(self, etcd: Etcd, token: str, lease_s: int) -> None:
        """Write nothing yet. ``token``: empty where the pools have none."""
        self._etcd = etcd
        self._token = token
        self._lease_s = lease_s
        self._lease: int | None = None
        self._heard: dict[BackendKey, dict[str, float]] = {}  # by node: when (time.monotonic)

    async def announce(self, said: Said) -> Views:
        """Keep the lease, and have under it what is said; see ``Registrar``."""
        try:
            if self._lease is not None:
                await self._etcd.keep_alive(self._lease)
            else:
                self._lease = await self._etcd.grant(self._lease_s)
            for key, registration in said.items():
                await self._write(key, registration, self._lease)
            return {key: await self._views(key, said[key]) for key in said}
        except EtcdLeaseLost:
            self._lease = None
            return await self.announce(said)
        except EtcdConflict as error:  # somebody else wrote in the same moment: look again
            raise LostError(str(error)) from error
        except EtcdError as error:
            raise LostError(f"etcd: {error}") from error

    async def withdraw(self, said: Said) -> None:
        """End the lease, and all under it goes."""
        try:
            if self._lease is not None:
                await self._etcd.revoke(self._lease)
        except EtcdError as error:
            log.warning("registration_remains", reason=f"etcd: {error}; it ends with its lease")

    async def _write(self, key: BackendKey, registration: Registration, lease: int) -> None:
        text, at = dump(key, registration, self._token), place(BACKENDS, key)
        found = await self._etcd.get(at)
        if found and found.text == text:
            return
        if found:
            _yield_to_others(key, registration, found.text)
        await self._etcd.put(at, text, lease, only_if=found.revision if found else 0)

    async def _views(self, key: BackendKey, said: Registration) -> Sequence[View]:
        found, _revision = await self._etcd.get_prefix(place(VIEWS, key) + "/")
        views = [_view(v.text, unquote(at.split("/")[-1]), said.since) for at, v in found.items()]
        of_this = [view for view in views if view.since == said.since]
        now, heard = time.monotonic(), self._heard.setdefault(key, {})
        heard |= {view.node: now for view in of_this}
        return [*of_this, *(_silent(n, SILENT, at) for n, at in sorted(heard.items()) if at < now)]


def _silent(node: str, reason: str, heard: float) -> View:
    """Return what to make of a node that says nothing. At first it may well send flows here."""
    known = time.monotonic() - heard < UNHEARD_S
    return View(node=node, state="active" if known else "unknown", reason=reason)


def _view(text: str | bytes, node: str, since: float) -> View:
    """Read what a node says. Where that cannot be done the node may well have live flows."""
    try:
        return View.model_validate_json(text)
    except ValidationError:
        reason = "what this node says cannot be read (another version of lbfwd?)"
        return View(node=node, state="active", reason=reason, since=since)


def _yield_to_others(key: BackendKey, said: Registration, text: str) -> None:
    """Raise RegistrationError when the name is that of a backend with another address."""
    try:
        other = parse(text)
    except RegistrationError:
        return
    if other.address != said.address:
        raise RegistrationError(
            f'name "{key[1]}": is that of another backend ({other.address}) in pool "{key[0]}",'
            " until its lease ends"
        )


class HttpsRegistrar:
    """At each node; one that is not reached is tried again the next time."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        nodes: Sequence[str],
        tls: ssl.SSLContext,
        lease_s: int,
    ) -> None:
        """``session`` shows the token. ``nodes``: URLs."""
        self._session = session
        self._nodes = nodes
        self._tls = tls
        self._lease_s = lease_s
        self._lost: dict[str, float] = {}  # since when (time.monotonic)

    async def announce(self, said: Said) -> Views:
        """Tell every node; see ``Registrar``."""
        pairs = [(node, key) for node in self._nodes for key in said]
        # All are waited for: whoever takes a refused registration back must come last.
        answers = await asyncio.gather(*(self._put(node, key, said[key]) for node, key in pairs))
        lost = {n: a for (n, _), a in zip(pairs, answers, strict=True) if isinstance(a, str)}
        self._note(lost)
        if not any(isinstance(answer, View) for answer in answers):
            raise LostError("; ".join(f"{node}: {why}" for node, why in lost.items()))
        found: dict[BackendKey, list[View]] = {key: [] for key in said}
        for (node, key), answer in zip(pairs, answers, strict=True):
            view = answer if isinstance(answer, View) else _silent(node, answer, self._lost[node])
            found[key].append(view)
        return found

    async def withdraw(self, said: Said) -> None:
        """Tell every node that is reached; what was refused there is not ours."""
        urls = [
            f"{place(BACKENDS, k)}?{urlencode({'address': s.address})}" for k, s in said.items()
        ]
        pairs = [(node, url) for node in self._nodes for url in urls]
        asked = (self._ask("DELETE", node, url) for node, url in pairs)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = zip(pairs, answers, strict=True)
        for node, why in {n: a for (n, _), a in told if isinstance(a, LostError)}.items():
            log.warning("registration_remains", reason=f"{node}: {why}; it ends with its lease")

    async def _put(self, node: str, key: BackendKey, said: Registration) -> View | str:
        """Return what a node makes of it, or why it did not say."""
        body = said.model_dump(mode="json") | {"lease_s": self._lease_s}
        try:
            answer = await self._ask("PUT", node, place(BACKENDS, key), body)
        except RegistrationError as error:
            return View(node=node, state="refused", reason=str(error), since=said.since)
        except LostError as error:
            return str(error)
        return _view(answer, node, said.since)

    async def _ask(self, method: str, node: str, resource: str, body: object = None) -> bytes:
        """Return a node's answer. Raises RegistrationError, or LostError: there was none."""
        url = URL(f"{node}/v1/{resource}", encoded=True)
        try:
            async with (
                asyncio.timeout(min(ANSWER_S, self._lease_s / BEATS)),
                self._session.request(
                    method, url, json=body, ssl=self._tls, allow_redirects=False
                ) as response,
            ):
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
            raise LostError(reason) from error
        if response.status == 200:
            return answer
        kind = RegistrationError if response.status in _REFUSED else LostError
        raise kind(_reason(answer, f"status {response.status}"))

    def _note(self, lost: Mapping[str, str]) -> None:
        for node, why in lost.items():
            if node not in self._lost:
                log.warning("node_lost", node=node, reason=why)
        for node in self._lost.keys() - lost.keys():
            log.info("node_found", node=node)
        now = time.monotonic()
        self._lost = {node: self._lost.get(node, now) for node in lost}


def _reason(answer: bytes, otherwise: str) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return otherwise
