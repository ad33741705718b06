"""Backends come and go by themselves: from etcd, over HTTPS, by their leases.

Whatever changes takes effect like a change of health: at once, and only in its pool.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from lbfwd.config import Config
from lbfwd.config.key import KeyFileError, read_tokens
from lbfwd.fleet import registration
from lbfwd.fleet.etcd import Etcd
from lbfwd.fleet.etcd_wire import EtcdError, Value
from lbfwd.fleet.merge import no_pool
from lbfwd.fleet.registration import BACKENDS, Registration, RegistrationError, View
from lbfwd.health.standing import BackendKey
from lbfwd.supervisor import log, registry
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import describe
from lbfwd.supervisor.observe import Observer
from lbfwd.supervisor.reconcile import Reconciler
from lbfwd.supervisor.registry import Bad, Entry, Registry
from lbfwd.supervisor.views import Views

TICK_S = 0.25
LATE_S = 1.0
AGAIN_S = 5.0


@dataclass(frozen=True)
class Places:
    """``config``: the directory in which relative paths begin. ``state``: survives a restart."""

    config: Path
    state: Path


class Enrolment:
    """Takes registrations up, and says what became of them."""

    def __init__(
        self, registry_: Registry, reconciler: Reconciler, observer: Observer, places: Places
    ) -> None:
        """Take up nothing yet."""
        self._registry = registry_
        self._reconciler = reconciler
        self._observer = observer
        self._places = places
        self._tokens: Mapping[str, Sequence[str]] = {}
        self._unreadable = frozenset[str]()  # pools whose token file is
        self._keys: Mapping[str, Value] | None = None
        self._seen = reconciler.base
        self._read_at = 0.0
        self._told = dict[BackendKey, str]()
        self._kept = ""
        self._lock = asyncio.Lock()
        self._log = log.get()

    async def run(self, etcd: Etcd | None) -> None:
        """Follow leases, and etcd where there is one, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_leases())
            if etcd is not None:
                tasks.create_task(self._follow(etcd))
                tasks.create_task(Views(etcd).run(self.views))

    async def put(self, key: BackendKey, said: Registration, lease_s: int) -> View:
        """Take up a registration, or the sign of life of one. Raises RegistrationError."""
        async with self._lock:
            # Its lease begins when it is taken up, however long that had to wait for a reload.
            entry = Entry(said, "https", time.time(), lease_s, _now() + lease_s)
            new = key not in self._registry.entries
            if self._registry.put(key, entry):
                await self._take_up()
            if reason := self._registry.refused.get(key):
                self._registry.drop(key)
                await self._keep()
                raise RegistrationError(reason)
        if new:
            facts = {"pool": key[0], "backend": key[1], "address": str(said.address)}
            self._log.info("backend_registered", **facts, source="https")
        return await self.view(key)

    async def remove(self, key: BackendKey, address: str) -> None:
        """Take a registration back; one that is not there is no error.

        Raises RegistrationError: it is that of another address.
        """
        async with self._lock:
            entry = self._registry.entries.get(key)
            if entry and str(entry.said.address) != address:
                owner = entry.said.address
                raise RegistrationError(f'name "{key[1]}": is that of another backend ({owner})')
            if self._registry.lose(key, _now(), time.time()):
                await self._take_up()

    async def tokens(self, pool: str) -> Sequence[str]:
        """Return the tokens of a pool as its file has them now; none: nobody can register there."""
        files = _token_files(self._reconciler.base, self._places.config)
        await self._read_tokens({name: file for name, file in files.items() if name == pool})
        return self._tokens.get(pool, ()) if pool in files else ()

    async def _read_tokens(self, files: Mapping[str, Path]) -> None:
        """Read them as they are now. A pool whose file cannot be read lets nobody in."""
        found, problems = await in_thread(None, _tokens, files)
        for pool in problems.keys() - self._unreadable:
            self._log.error("registration_token_lost", pool=pool, reason=problems[pool])
        for pool in found.keys() & self._unreadable:
            self._log.info("registration_token_found", pool=pool)
        self._unreadable = (self._unreadable - files.keys()) | problems.keys()
        self._tokens = {p: t for p, t in self._tokens.items() if p not in files} | found

    async def view(self, key: BackendKey, counted: float | None = None) -> View:
        """Return what this node makes of a registration.

        ``counted``: since when flows must have been counted (time.monotonic); default: now.
        """
        node, state = self._reconciler.config.node.name, self._registry.state(key)
        entry, bad = self._registry.entries.get(key), self._registry.bad.get(key)
        since = entry.said.since if entry else bad.since if bad else None
        if state == "refused":
            reason = bad.reason if bad else self._registry.refused.get(key, "is not registered")
            return View(node=node, state=state, reason=reason, since=since)
        reason, flows = self._observer.standing(key).reason, None
        if state == "paused":
            flows = (await self._observer.flows_of(key, counted or time.monotonic())).live
        return View(node=node, state=state, reason=reason, since=since, flows=flows)

    async def views(self) -> dict[BackendKey, View]:
        """Return what this node makes of all that etcd holds."""
        known = [key for key, entry in self._registry.entries.items() if entry.source == "etcd"]
        now = time.monotonic()
        return {key: await self.view(key, now) for key in {*known, *self._registry.bad}}

    async def _watch_leases(self) -> None:
        looked = _now()
        while True:
            await asyncio.sleep(TICK_S)
            async with self._lock:
                late_s, looked = _now() - looked - TICK_S, _now()
                if late_s > LATE_S:  # signs of life may lie there unread
                    self._registry.extend(late_s)
                await self._safely(self._look_at_leases())

    async def _safely(self, work: Awaitable[None]) -> None:
        """Outlive a bug: forwarding must not end for a registration."""
        try:
            await work
        except Exception:
            self._log.exception("registration_crashed")

    async def _look_at_leases(self) -> None:
        config, now = self._reconciler.base, _now()
        dropped, changed = self._registry.expire(config, now, time.time())
        for pool, name in dropped:
            self._log.info("backend_unregistered", pool=pool, backend=name)
        other = config is not self._seen  # other pools, other tokens
        if self._keys is not None and (other or await self._is_to_be_read_again(now)):
            changed = await self._read(self._keys) or other or changed
        self._seen = config
        if changed:
            await self._take_up()

    async def _is_to_be_read_again(self, now: float) -> bool:
        """Whether a token file may say something else now of what etcd holds."""
        if now < self._read_at + AGAIN_S:
            return False
        before, self._read_at = self._tokens, now
        await self._read_tokens(_token_files(self._reconciler.base, self._places.config))
        return bool(self._registry.bad) or self._tokens != before

    async def _follow(self, etcd: Etcd) -> None:
        async with aclosing(etcd.follow(BACKENDS)) as states:
            async for keys in states:
                async with self._lock:
                    self._keys = keys
                    await self._safely(self._told_by_etcd(keys))

    async def _told_by_etcd(self, keys: Mapping[str, Value]) -> None:
        if await self._read(keys):
            await self._take_up()

    async def _read(self, keys: Mapping[str, Value]) -> bool:
        await self._read_tokens(_token_files(self._reconciler.base, self._places.config))
        self._read_at = _now()
        found, bad = await in_thread(None, read_all, keys, self._reconciler.base, self._tokens)
        for key in found.keys() - self._registry.entries.keys():
            facts = {"pool": key[0], "backend": key[1], "address": str(found[key].address)}
            self._log.info("backend_registered", **facts, source="etcd")
        return self._registry.told(found, bad, _now(), time.time())

    async def _take_up(self) -> None:
        await self._reconciler.revise()
        await self._reconciler.republish()
        bad = {key: found.reason for key, found in self._registry.bad.items()}
        refused = {**self._registry.refused, **bad}
        for key, reason in refused.items():
            if self._told.get(key) != reason:
                facts = {"pool": key[0], "backend": key[1], "reason": reason}
                self._log.warning("registration_refused", **facts)
        self._told = refused
        await self._keep()

    async def _keep(self) -> None:
        text = registry.dump(self._registry.entries)
        if text == self._kept:
            return
        try:
            await in_thread(None, registry.save, self._places.state, text)
            self._kept = text
        except OSError as error:
            self._log.error("registrations_not_kept", reason=describe(error))


def read_all(
    keys: Mapping[str, Value], config: Config, tokens: Mapping[str, Sequence[str]]
) -> tuple[dict[BackendKey, Registration], dict[BackendKey, Bad]]:
    """Read what etcd holds; returns the registrations, and why others are none. Pure."""
    guarded = {p.name: bool(p.registration.token_file) for p in config.pools if p.registration}
    found: dict[BackendKey, Registration] = {}
    bad: dict[BackendKey, Bad] = {}
    for place, value in keys.items():
        with contextlib.suppress(RegistrationError):  # a key that we cannot name is nobody's
            key = registration.key_of(place)
            try:
                if key[0] not in guarded:
                    raise RegistrationError(no_pool(key[0]))
                if guarded[key[0]] and not tokens.get(key[0]):
                    raise RegistrationError(f'pool "{key[0]}": this node cannot read its token')
                found[key] = registration.read(key, value.text, tokens.get(key[0], ()))
            except RegistrationError as error:
                bad[key] = Bad(str(error), _since(value.text))
    return found, bad


def _since(text: str) -> float | None:
    try:
        return registration.parse(text).since
    except RegistrationError:
        return None


def _token_files(config: Config, directory: Path) -> dict[str, Path]:
    return {
        pool.name: directory / pool.registration.token_file
        for pool in config.pools
        if pool.registration and pool.registration.token_file
    }


def _tokens(files: Mapping[str, Path]) -> tuple[dict[str, Sequence[str]], dict[str, str]]:
    """Return the tokens by pool, and why others cannot be read."""
    found: dict[str, Sequence[str]] = {}
    problems = {}
    for pool, file in files.items():
        try:
            found[pool] = read_tokens(file)
        except KeyFileError as error:
            problems[pool] = f"{file}: {error}"
    return found, problems


def _now() -> float:
    return asyncio.get_running_loop().time()


async def registered(config: Config, places: Places, etcd: Etcd | None) -> Registry:
    """Return who is registered when the node starts: by the disk, and by etcd if it answers.

    ``etcd``: None: there is none any more, nor anybody who would end what was registered there.
    """
    registry_, now, epoch = Registry(), _now(), time.time()
    try:
        registry_.entries = await in_thread(None, registry.load, places.state, now, epoch)
    except (OSError, ValueError) as error:
        log.get().error("registrations_lost", reason=describe(error))
    if etcd is None:
        registry_.drop(*(key for key, entry in registry_.entries.items() if entry.source == "etcd"))
        return registry_
    with contextlib.suppress(EtcdError):  # it is in the log, and what is on disk holds
        keys, _revision = await etcd.get_prefix(BACKENDS)
        tokens, _ = await in_thread(None, _tokens, _token_files(config, places.config))
        registry_.told(*await in_thread(None, read_all, keys, config, tokens), now, epoch)
    return registry_
