"""What rings are filled with in the benchmark "forward"."""

from dataclasses import dataclass

from bench.frames import Shape
from bench.rings import Rings

PACKETS = 60_000  # in every ring before each measurement
RINGS = Rings(rx_ring_mib=128, rx_retire_ms=10)  # has room for them, whatever their size
KNOWN_FLOWS = 1_000_000


@dataclass(frozen=True)
class Scenario:
    """Frames of one size (RFC 2544: with the FCS) and so many flows.

    Established: lbfwd knows every flow. New (``flows`` 0): every packet is the first of a flow.
    """

    size: int
    flows: int

    @property
    def name(self) -> str:
        """Say it in words."""
        if not self.flows:
            return f"{self.size} bytes, new flows"
        return f"{self.size} bytes, {self.flows:,} flow{'s' if self.flows > 1 else ''}"

    @property
    def shape(self) -> Shape:
        """The frames: a new flow begins with a SYN."""
        return Shape(self.size, 4, "tcp-ack" if self.flows else "tcp-syn")

    def window(self, turn: int) -> tuple[int, int]:
        """Return how many flows the n-th filling has, and the number of the first.

        Of more flows than packets another part comes each time; new flows never come again.
        """
        if not self.flows:
            return PACKETS, KNOWN_FLOWS + turn * PACKETS
        if self.flows < PACKETS:
            return self.flows, 0
        return PACKETS, turn % (self.flows // PACKETS) * PACKETS


MANY, MOST, NEW = Scenario(64, 10_000), Scenario(64, KNOWN_FLOWS), Scenario(64, 0)
SCENARIOS = (Scenario(64, 1), MANY, MOST, NEW, Scenario(512, 10_000), Scenario(1500, 10_000))
