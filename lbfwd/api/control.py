"""What the admin socket controls: a running node, by groups of requests."""

from collections.abc import Mapping
from typing import Protocol

from lbfwd.api.fleet import FleetAnswers
from lbfwd.flow import Flow
from lbfwd.supervisor.changes import BackendReport, Forecast, Reloaded, Terms
from lbfwd.supervisor.live import LiveReport, LiveWatch
from lbfwd.supervisor.operations import Mode
from lbfwd.supervisor.status import Status
from lbfwd.supervisor.trace import Trace
from lbfwd.tables import FlowCount, FlowKey


class Answers(Protocol):
    """Looks, and changes nothing."""

    async def status(self) -> Status:
        """Return what the node does now."""

    async def trace(self, flow: Flow) -> Trace:
        """Return what would become of the flow's next packet. Raises SupervisorError."""

    async def watch(self, token: bytes, seconds: float) -> LiveWatch:
        """Look for a marked packet. Raises SupervisorError (Refused, TooSoon)."""

    async def report(self, token: bytes) -> LiveReport:
        """Return how it went, once it was seen or the time is over. Raises Refused."""

    async def flows(self) -> Mapping[FlowKey, FlowCount]:
        """Return the live flows by service and backend. Raises OSError."""


class Changes(Protocol):
    """Changes what the node does. Each raises ConfigError or SupervisorError (Refused)."""

    async def plan(self, text: str, file: str) -> Forecast:
        """Return what taking up the text of a file would do."""

    async def reload(self, terms: Terms, who: str) -> Reloaded:
        """Take up the configuration anew."""

    async def confirm(self, who: str) -> None:
        """Keep what a reload has taken up on probation."""

    async def undo(self, who: str) -> Reloaded:
        """Return to the configuration before the last one."""

    async def operate(self, mode: Mode, name: str, pool: str | None, who: str) -> BackendReport:
        """Drain or disable a backend."""

    async def end_operation(
        self, mode: Mode, name: str, pool: str | None, who: str
    ) -> BackendReport:
        """Take a backend into service again."""

    async def backend(self, name: str, pool: str | None) -> BackendReport:
        """Return what was said of a backend, and how many flows it still has."""


class Control(Answers, FleetAnswers, Protocol):
    """The whole node."""

    @property
    def changes(self) -> Changes:
        """Who changes it."""
