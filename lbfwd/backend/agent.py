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


class Ending(BaseModel):
    """How a backend has left.

    ``drained``: no node that could be asked had live flows. ``unheard``: who could not be asked.
    """

    model_config = ConfigDict(frozen=True)

    drained: bool
    unheard: tuple[str, ...]


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

    async def leave(self, drain_s: float) -> Ending:
        """Pause, wait until no node has live flows of ours, ``drain_s`` at most, and unregister.

        Of several at once the first that is through ends all.
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
        ending = Ending(drained=self._is_drained(), unheard=self._unheard())
        async with self._beating:
            if not self._left:
                self._left = True
                await self._registrar.withdraw(self._said)
                log.info("registration_withdrawn", **ending.model_dump())
        return ending

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
        if lost := await self._beat():
            raise LostError(lost)
        return self.report()

    async def _beat(self) -> str:
        """Say it once more; returns why nobody has heard it, empty: somebody has.

        Raises RegistrationError as ``run``.
        """
        async with self._beating:
            if self._left:
                return ""
            refusal = lost = ""
            try:
                self._views = await self._registrar.announce(self._said)
                refusal = self._refusal()
            except RegistrationError as error:
                refusal = lost = str(error)
            except LostError as error:
                lost = str(error)
            if refusal and not self._accepted:
                await self._registrar.withdraw(self._said)
                raise RegistrationError(refusal)
            self._note(refusal or lost)
            return lost

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.error("registration_lost", reason=problem)
        elif self._problem and not problem:
            where = [f"{pool}/{name}" for pool, name in self._said]
            log.info("registered", backend=where)
        self._problem = problem
        # Somebody has said what it makes of it, and nobody has refused.
        self._accepted = self._accepted or (not problem and bool(self._all_views()))

    def _all_views(self) -> Sequence[View]:
        return [view for several in self._views.values() for view in several]

    def _refusal(self) -> str:
        refused = [view for view in self._all_views() if view.state == "refused"]
        return "; ".join(dict.fromkeys(f"{view.node}: {view.reason}" for view in refused))

    def _unheard(self) -> tuple[str, ...]:
        return tuple(sorted({v.node for v in self._all_views() if v.state == "unknown"}))

    def _is_drained(self) -> bool:
        """Whether each node that may send flows here has said that it has none.

        Who is ``unknown`` is not waited for. Where all are, it is this machine that is cut off. Who
        refuses may hold flows until our lease there has ended.
        """
        heard = [view for view in self._all_views() if view.state != "unknown"]
        return bool(heard) and all(
            view.state not in ("active", "refused") and (view.state != "paused" or view.flows == 0)
            for view in heard
        )
