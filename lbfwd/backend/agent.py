"""Keeps a backend registered: signs of life, paused or not, and a polite end."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict

from lbfwd.backend.registrar import BEATS, LostError, Registrar, Views
from lbfwd.fleet.registration import Registration, RegistrationError, View
from lbfwd.health.standing import BackendKey

DRAIN_POLL_S = 0.75
LOOKS = 2

log = structlog.get_logger()


class PoolReport(BaseModel):
    """A registration, and what each node makes of it."""

    model_config = ConfigDict(frozen=True)

    pool: str
    name: str
    address: str
    weight: int
    state: Literal["active", "paused"]
    nodes: tuple[View, ...]


class Report(BaseModel):
    """All registrations of this backend. ``problem``: why they are not renewed; empty: they are."""

    model_config = ConfigDict(frozen=True)

    pools: tuple[PoolReport, ...]
    problem: str


class Agent:
    """One backend in one or more pools."""

    def __init__(
        self, registrar: Registrar, said: Mapping[BackendKey, Registration], lease_s: int
    ) -> None:
        """Say nothing yet."""
        self._registrar = registrar
        self._said = dict(said)
        self._period_s = lease_s / BEATS
        self._views: Views = {}
        self._problem = "not registered yet"
        self._accepted = False
        self._left = False
        self._beating = asyncio.Lock()

    async def run(self) -> None:
        """Register and stay so, for ever.

        Raises RegistrationError when it is refused before it was ever accepted.
        """
        while True:
            begun = time.monotonic()
            await self._beat()
            await asyncio.sleep(max(0.0, begun + self._period_s - time.monotonic()))

    async def pause(self) -> Report:
        """Ask for no new flows. Raises LostError: nobody was told yet; it is tried again."""
        return await self._set("paused")

    async def resume(self) -> Report:
        """Ask for new flows again. Raises LostError as ``pause``."""
        return await self._set("active")

    async def leave(self, drain_s: float) -> bool:
        """Pause, wait until no node has live flows of ours, ``drain_s`` at most, and unregister.

        Returns whether there are none. Of several at once the first that is through ends all.
        """
        deadline = time.monotonic() + drain_s
        if drain_s and not self._left:
            with contextlib.suppress(LostError):
                await self.pause()
        quiet = 0  # looks in a row: the last new flow may come while a node takes it up
        while (quiet := quiet + 1 if self._is_drained() else 0) < LOOKS:
            if self._left or time.monotonic() >= deadline:
                break
            await asyncio.sleep(min(DRAIN_POLL_S, max(0.0, deadline - time.monotonic())))
            await self._beat()
        drained = self._is_drained()
        async with self._beating:
            if not self._left:
                self._left = True
                await self._registrar.withdraw(self._said)
                log.info("registration_withdrawn", drained=drained)
        return drained

    def report(self) -> Report:
        """Return how it stands."""
        return Report(
            pools=tuple(
                PoolReport(
                    pool=pool,
                    name=name,
                    address=str(said.address),
                    weight=said.weight,
                    state=said.state,
                    nodes=tuple(self._views.get((pool, name), ())),
                )
                for (pool, name), said in self._said.items()
            ),
            problem=self._problem,
        )

    async def _set(self, state: Literal["active", "paused"]) -> Report:
        self._said = {
            key: said.model_copy(update={"state": state}) for key, said in self._said.items()
        }
        log.info("registration_changed", state=state)
        await self._beat()
        if self._problem:
            raise LostError(self._problem)
        return self.report()

    async def _beat(self) -> None:
        async with self._beating:
            if self._left:
                return
            try:
                self._views = await self._registrar.announce(self._said)
            except (LostError, RegistrationError) as error:
                if isinstance(error, RegistrationError) and not self._accepted:
                    await self._registrar.withdraw(self._said)
                    raise
                if str(error) != self._problem:
                    log.error("registration_lost", reason=str(error))
                self._problem = str(error)
                return
        if self._problem:
            where = [f"{pool}/{name}" for pool, name in self._said]
            log.info("registered", backend=where)
        self._problem, self._accepted = "", self._accepted or self._is_known()

    def _is_known(self) -> bool:
        """Whether some node has said what it makes of it, and it was no refusal."""
        return any(views for views in self._views.values())

    def _is_drained(self) -> bool:
        """Whether every node that may send flows here has said that it has none."""
        views: Sequence[View] = [view for several in self._views.values() for view in several]
        return bool(views) and all(
            view.state != "active" and not (view.state == "paused" and view.flows != 0)
            for view in views
        )
