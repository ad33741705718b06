"""The shared part of the configuration: what etcd holds, what is in force, what is on disk.

A node without ``[etcd]`` has none, and then all of this does nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from lbfwd.config import Config, ConfigError
from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.shared import Shared
from lbfwd.fleet.etcd import Etcd, connect
from lbfwd.fleet.etcd_wire import EtcdError, Value
from lbfwd.supervisor import log, shared_file
from lbfwd.supervisor.blocking import in_thread
from lbfwd.supervisor.errors import Refused, SupervisorError, describe
from lbfwd.supervisor.source import Source
from lbfwd.supervisor.status import SharedStatus

KEY = "config"
CANDIDATES = "candidates/"
AGAIN_S = 5.0
LONGEST_AGAIN_S = 300.0

Reload = Callable[[], Awaitable[object]]


class SharedConfig:
    """Follows etcd, and remembers what was taken up.

    ``latest``: what etcd said last, as far as is known, in force or not; None: nothing ever.
    """

    def __init__(self, file: Path, etcd: Etcd | None = None, key: str = "") -> None:
        """``file``: where the last good one is. ``key``: what etcd's key is called in messages."""
        self.latest: Shared | None = None
        self.etcd = etcd
        self._key = key
        self._file = file
        self._in_force: Shared | None = None
        self._previous: Shared | None = None
        self._kept: Shared | None = None
        self._problems: tuple[str, ...] = ()
        self._gone = False  # etcd's key, which it had
        self._news = asyncio.Event()
        self._log = log.get()

    async def first(self, source: Source) -> Config:
        """Return what to start with: etcd's, or the last good one where that cannot be had.

        Raises ConfigError or SupervisorError.
        """
        await self._look_at_disk(source)
        if self.etcd is None:
            return await in_thread(None, source.read)
        try:
            self.latest = self._shared(await self.etcd.get(KEY))
            reason = "" if self.latest else f"etcd has no key {self._key}"
        except EtcdError as error:
            reason = str(error)
            # A file that has pools leaves nothing to etcd but registrations.
            if self._kept is None and not (await in_thread(None, source.read)).pools:
                raise SupervisorError(f"etcd: {reason}; no {self._file} to start from") from error
        if self.latest is None and self._kept is None:
            self._log.warning("shared_config_absent", key=self._key)
            return await in_thread(None, source.read)
        return await self._first_good(source, reason)

    async def _first_good(self, source: Source, reason: str) -> Config:
        if self.latest is not None:
            try:
                config = await in_thread(None, source.read, self.latest)
            except ConfigError as error:
                if self._kept is None or self._kept.text == self.latest.text:
                    raise
                self._refused(error)
                for problem in self._problems:
                    self._log.error("reload_refused", who="etcd", problem=problem)
                reason = f"revision {self.latest.revision} in etcd was refused"
            else:
                self._in_force = self.latest
                return config
        assert self._kept is not None  # noqa: S101 - that has been seen to
        config = await in_thread(None, source.read, self._kept)
        self._in_force = self._kept
        self.latest = self.latest or self._kept
        self._log.error(
            "shared_config_from_disk",
            file=str(self._file),
            revision=self._kept.revision,
            reason=reason,
        )
        return config

    async def took_up(self, shared: Shared | None, *, changed: bool) -> str:
        """Note what is in force now, and keep it on disk. ``changed``: it differs in effect.

        Returns why it could not be kept: it is in force all the same. Raises nothing.
        """
        if changed:
            self._previous = self._in_force
        self._in_force = shared
        self._problems = ()
        return await self._keep()

    def went_back(self) -> None:
        """Note that what was in force before is so again; etcd and the disk hold the other one."""
        self._in_force = self._previous

    async def candidate(self, name: str) -> Shared:
        """Return what somebody thinks of pushing. Raises Refused or SupervisorError."""
        if self.etcd is None:
            raise Refused("[etcd] endpoints is empty on this node: there is no candidate")
        try:
            found = await self.etcd.get(CANDIDATES + name)
        except EtcdError as error:
            raise SupervisorError(f"etcd: {error}") from error
        if found is None:
            raise Refused(f"etcd has no candidate {name!r}")
        return Shared(found.text, "candidate", found.revision)

    def report(self) -> SharedStatus | None:
        """Return how it stands; None: all comes from the file."""
        if self.etcd is None:
            return None
        gone = (f"etcd has no key {self._key} any more",) if self._gone else ()
        return SharedStatus(
            key=self._key,
            revision=self._in_force.revision if self._in_force else None,
            digest=self._in_force.digest if self._in_force else "",
            seen=self.latest.revision if self.latest and not self._gone else None,
            problems=(*self._problems, *gone),
            etcd_problem=self.etcd.problem,
        )

    async def run(self, reload: Reload) -> None:
        """Take up what etcd says from now on, for ever; ``reload`` reads ``latest``."""
        if self.etcd is not None:
            await self._keep()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(self.etcd))
                tasks.create_task(self._take_up(reload))

    async def _follow(self, etcd: Etcd) -> None:
        async with aclosing(etcd.follow(KEY)) as states:
            async for keys in states:
                found = self._shared(keys.get(KEY))
                self._note_gone(found is None and self._in_force is not None)
                if found not in (None, self.latest):
                    self.latest, self._problems = found, ()
                    self._news.set()

    def _note_gone(self, gone: bool) -> None:
        if gone and not self._gone:
            self._log.error("shared_config_gone", key=self._key)
        self._gone = gone

    async def _take_up(self, reload: Reload) -> None:
        pause_s = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()
                    pause_s = None
            self._news.clear()
            again = await self._try(reload)
            pause_s = min(2 * (pause_s or AGAIN_S / 2), LONGEST_AGAIN_S) if again else None

    async def _try(self, reload: Reload) -> bool:
        """Take up what is new. Returns whether that is to be tried again later."""
        if self.latest and self._in_force and self.latest.text == self._in_force.text:
            await self.took_up(self.latest, changed=False)
            return False
        try:
            await reload()
        except ConfigError as error:
            self._refused(error)
            return False
        except SupervisorError as error:
            self._problems = (str(error),)
            return True
        except Exception:
            self._log.exception("change_crashed")
            return True
        return False

    def _refused(self, error: ConfigError) -> None:
        self._problems = tuple(map(str, error.problems))

    def _shared(self, value: Value | None) -> Shared | None:
        if value is None:
            return None
        return Shared(value.text, f"{self._key} in etcd", value.revision)

    async def _look_at_disk(self, source: Source) -> None:
        try:
            kept = await in_thread(None, shared_file.load, self._file)
        except (OSError, ValueError) as error:
            self._log.error("shared_config_not_kept", reason=describe(error))
            return
        if kept and (self.etcd is None or await in_thread(None, source.replaces, kept)):
            facts = {"file": str(self._file), "revision": kept.revision}
            self._log.warning("shared_config_leftover", **facts)
            return
        self._kept = kept

    async def _keep(self) -> str:
        shared = self._in_force
        if shared is None or shared == self._kept:
            return ""
        try:
            await in_thread(None, shared_file.save, self._file, shared)
        except Exception as error:  # what is in force stays so, whatever the disk says
            reason = f"{self._file}: {describe(error)}"
            self._log.error("shared_config_not_kept", reason=reason)
            return reason
        self._kept = shared
        return ""


def _told(problem: str) -> None:
    if problem:
        log.get().error("etcd_lost", reason=problem)
    else:
        log.get().info("etcd_found")


@asynccontextmanager
async def opened(source: Source, state: Path) -> AsyncIterator[SharedConfig]:
    """Give the shared part of a node. ``state``: the state directory. Raises ConfigError too."""
    settings: EtcdSettings = await in_thread(None, source.read_etcd)
    file = state / shared_file.FILE
    if not settings.endpoints:
        yield SharedConfig(file)
        return
    try:
        connected = connect(settings, source.path.parent, _told)
        async with connected as etcd:
            yield SharedConfig(file, etcd, settings.prefix + KEY)
    except EtcdError as error:
        raise SupervisorError(str(error)) from error
