"""The sockets and the judge of a capture, made for the node as it is at one moment."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lbfwd.capture.judge import Judge
from lbfwd.capture.outlook import foreseeing
from lbfwd.capture.program import Wanted, program
from lbfwd.capture.selection import Asked, CaptureError, Selection, select
from lbfwd.capture.tap import Frame, Tap
from lbfwd.config import IPAddress
from lbfwd.supervisor.status import Status

Place = tuple[str, int]
"""An interface: its name and its index; one that was made again has another."""


@dataclass(frozen=True)
class Seen:
    """The node at one moment. ``own``: addresses of the machine."""

    status: Status
    own: frozenset[IPAddress]


@dataclass(frozen=True)
class Taken:
    """What has become of a capture. ``failed``: interfaces that cannot be captured, and why."""

    opened: tuple[Tap, ...]
    failed: tuple[str, ...]


class Aim:
    """What a capture reads, and what it says of it. ``take`` makes it right for the node."""

    def __init__(self, asked: Asked, runtime: Path, sample: int, snaplen: int) -> None:
        """Capture nothing yet. ``runtime``: the node's directory."""
        self._asked = asked
        self._runtime = runtime
        self._sample, self._snaplen = sample, snaplen
        self._now: dict[Place, Tap] = {}
        self.taps: list[Tap] = []
        """Every socket that was opened, in the order of their numbers in the file."""
        self._mtus: dict[int, int] = {}  # by number, of those that are closed, too
        self._files = ExitStack()
        self._judge: Judge | None = None
        self.contents: frozenset[str] = frozenset()

    def take(self, seen: Seen) -> Taken:
        """Capture what is asked for of the node as it is now.

        Raises CaptureError: there is no such thing, and nothing is captured; or the node's tables
        cannot be read, and all is as it was.
        """
        status = seen.status
        try:
            selection = select(status, self._asked)
        except CaptureError:
            self._retire(self._now)
            self.contents = frozenset()
            raise
        rings = sorted(i.tx_index for i in status.interfaces if i.tx_index is not None)
        with ExitStack() as files:
            foresee = files.enter_context(foreseeing(self._runtime, rings))
            self._judge = Judge(selection, foresee, self._mtus, seen.own)
            self._files.close()
            self._files = files.pop_all()
        wanted = self._wanted(status, selection)
        self._retire([place for place in self._now if place not in wanted])
        taken = self._tap(wanted, {i.name: i.mtu or 0 for i in status.interfaces})
        self.contents = selection.contents() | {f"interface {name}" for name, _ in self._now}
        return taken

    def comment(self, frame: Frame) -> str | None:
        """Return what to say of a frame; None: it is not wanted. Raises CaptureError."""
        return self._judge.comment(frame) if self._judge else None

    def close(self) -> None:
        """Close every socket, and the node's tables."""
        for tap in self.taps:
            tap.close()
        self._files.close()

    def _wanted(self, status: Status, selection: Selection) -> dict[Place, Wanted]:
        """Return what is to be admitted on each interface that the selection's packets pass."""
        wanted = {
            (i.name, i.ifindex): selection.wanted(
                i.receives, i.tx_index is not None, self._sample, self._snaplen
            )
            for i in status.interfaces
            if i.ifindex is not None
        }
        return {place: one for place, one in wanted.items() if one.before or one.after}

    def _tap(self, wanted: Mapping[Place, Wanted], mtus: Mapping[str, int]) -> Taken:
        opened: list[Tap] = []
        failed: list[str] = []
        for place, one in wanted.items():
            try:
                if place in self._now:
                    self._now[place].admit(program(one))
                else:
                    opened.append(Tap(len(self.taps), place[0], program(one)))
                    self.taps.append(opened[-1])
                    self._now[place] = opened[-1]
            except CaptureError as error:
                failed.append(str(error))
            else:
                self._mtus[self._now[place].number] = mtus[place[0]]
        return Taken(tuple(opened), tuple(failed))

    def _retire(self, places: Iterable[Place]) -> None:
        for place in list(places):
            self._now.pop(place).retire()
