"""Whether a captured frame is wanted, and what is said of it in the file."""

from collections.abc import Callable, Collection, Mapping

from lbfwd.capture.outlook import Outlook, shortened
from lbfwd.capture.packet import (
    ETHERNET_BYTES,
    VLAN_BYTES,
    Flow,
    destination,
    flow,
    ip_packet,
    source,
    tunnelled,
)
from lbfwd.capture.selection import ANY, Selection
from lbfwd.capture.tap import Frame
from lbfwd.config import IPAddress

FORWARDED = "none"
_SHORT_BYTES = 512  # of a super-frame: its headers, and more


class Judge:
    """Knows the selection and the node.

    ``foresee`` tells what becomes of a received frame; ``mtus``: the largest IP packet on the wire
    by interface number; ``own``: addresses of this node.
    """

    def __init__(
        self,
        selection: Selection,
        foresee: Callable[[bytes], Outlook],
        mtus: Mapping[int, int],
        own: Collection[IPAddress],
    ) -> None:
        self._selection = selection
        self._foresee = foresee
        self._mtus = mtus
        self._own = own
        self._known: dict[Flow, Outlook] = {}  # of the flows of this second
        self._second = 0

    def comment(self, frame: Frame) -> str | None:
        """Return what to say of a frame, as ``key=value`` words; None: it is not wanted."""
        words = self._sent(frame) if frame.sent else self._received(frame)
        if words is None:
            return None
        if frame.unfinished:
            words["checksum"] = "unfinished"
        return " ".join(f"{key}={value}" for key, value in words.items())

    def _sent(self, frame: Frame) -> dict[str, str] | None:
        outer = ip_packet(frame.data)
        inner = tunnelled(outer)
        to, found = destination(outer), flow(inner)
        if to not in self._selection.backends or not self._selection.has(found):
            return None
        words = {"packet": "after"} | self._service(found)
        words["backend"] = self._selection.backend_name(to, found)
        if source(inner) in self._own:
            words["from"] = "health-probe"
        return words

    def _received(self, frame: Frame) -> dict[str, str] | None:
        selection, found = self._selection, flow(ip_packet(frame.data))
        if destination(ip_packet(frame.data)) not in selection.vips or not selection.has(found):
            return None
        outlook = self._outlook(frame, found)
        if selection.named and outlook.backend not in selection.backends:
            return None
        dropped = outlook.reason != FORWARDED
        if selection.drop and (not dropped or selection.drop not in (ANY, outlook.reason)):
            return None
        words = {"packet": "before"} | self._service(found)
        if outlook.backend is not None:
            words["backend"] = selection.backend_name(outlook.backend, found)
        if dropped:
            words["reason"] = outlook.reason
        return words

    def _outlook(self, frame: Frame, found: Flow | None) -> Outlook:
        """Look at every packet where drops are wanted, else once a second at a flow that goes on.

        It takes its time: the packet path maps all tables anew.
        """
        second = frame.time_ns // 1_000_000_000
        if second != self._second:
            self._known, self._second = {}, second
        if found in self._known and not self._selection.drop:
            return self._known[found]
        outlook = self._foresee(self._whole(frame))
        if found is not None and outlook.reason == FORWARDED:
            self._known[found] = outlook
        return outlook

    def _service(self, found: Flow | None) -> dict[str, str]:
        service = self._selection.service_of(found) if found else None
        return {"service": service.name} if service else {}

    def _whole(self, frame: Frame) -> bytes:
        """Return a frame that is whole by its own account: the path knows no other."""
        most = self._mtus[frame.interface] + ETHERNET_BYTES + VLAN_BYTES
        if frame.length > most:
            return shortened(frame.data[:_SHORT_BYTES])
        return shortened(frame.data) if frame.length > len(frame.data) else frame.data
