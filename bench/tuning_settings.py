"""The settings of ``[workers]`` that the benchmark "tuning" tries: one key changed at a time."""

from dataclasses import dataclass, replace

from bench.node_run import config
from bench.rings import Rings

FLOWS = 1_048_576  # the default


@dataclass(frozen=True)
class Setting:
    """A configuration of a node's workers; ``name``: in what it differs from the defaults."""

    name: str
    rings: Rings = Rings()  # noqa: RUF009 - it is frozen
    flows: int = FLOWS
    fanout: str = "hash"
    cpus: tuple[int, ...] = (0,)

    def toml(self) -> str:
        """Return the whole configuration."""
        text = config(self.rings, self.cpus, self.flows)
        return text.replace("[workers]\n", f'[workers]\nfanout = "{self.fanout}"\n')


# A ring that stands still for as long as its filling takes needs more than a millisecond a block.
FILLABLE = Rings(rx_retire_ms=10)
RATE_BASE = Setting("rx_retire_ms = 10", FILLABLE)
RATES = (
    RATE_BASE,
    Setting('ring = "v2"', replace(FILLABLE, ring="v2")),
    Setting("rx_ring_mib = 16", replace(FILLABLE, rx_ring_mib=16)),
    Setting("rx_ring_mib = 256", replace(FILLABLE, rx_ring_mib=256)),
    Setting("rx_block_kib = 256", replace(FILLABLE, rx_block_kib=256)),
    Setting("rx_block_kib = 1024", replace(FILLABLE, rx_block_kib=1024)),
    Setting("rx_retire_ms = 2", replace(FILLABLE, rx_retire_ms=2)),
    Setting("tx_ring_frames = 256", replace(FILLABLE, tx_ring_frames=256)),
    Setting("tx_ring_frames = 1024", replace(FILLABLE, tx_ring_frames=1024)),
    Setting("qdisc_bypass = true", replace(FILLABLE, qdisc_bypass=True)),
    Setting("flows = 8388608", FILLABLE, flows=8_388_608),
)

INTAKE_BASE = Setting('fanout = "hash"', FILLABLE, cpus=(0, 1))
INTAKES = (
    Setting('fanout = "cpu"', FILLABLE, fanout="cpu", cpus=(0, 1)),
    Setting('fanout = "queue"', FILLABLE, fanout="queue", cpus=(0, 1)),
)

DEFAULTS = Setting("defaults")
_V2 = Setting('ring = "v2"', Rings(ring="v2"))
_RETIRE_10 = Setting("rx_retire_ms = 10", FILLABLE)
BUFFERS = (
    DEFAULTS,
    _V2,
    Setting("rx_ring_mib = 16", Rings(rx_ring_mib=16)),
    Setting("rx_block_kib = 256", Rings(rx_block_kib=256)),
    Setting("rx_block_kib = 1024", Rings(rx_block_kib=1024)),
    _RETIRE_10,
)
DELAYS = (
    DEFAULTS,
    Setting("rx_retire_ms = 4", Rings(rx_retire_ms=4)),
    _RETIRE_10,
    Setting("busy_poll_us = 50", Rings(busy_poll_us=50)),
    Setting("busy_poll_us = 2000", Rings(busy_poll_us=2000)),
    _V2,
    Setting('ring = "v2", busy_poll_us = 50', Rings(ring="v2", busy_poll_us=50)),
)
