"""The ring settings that every forwarder of ours is measured with: keys of ``[workers]``."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self


@dataclass(frozen=True)
class Rings:
    """As in ``[workers]``; the defaults are lbfwd's own."""

    ring: Literal["v3", "v2"] = "v3"
    rx_ring_mib: int = 64
    rx_block_kib: int = 128
    rx_retire_ms: int = 1
    busy_poll_us: int = 0
    tx_ring_frames: int = 4096
    qdisc_bypass: bool = False

    def toml(self) -> str:
        """Return the lines for ``[workers]``."""
        return "\n".join(f"{key} = {json.dumps(value)}" for key, value in asdict(self).items())

    def text(self) -> str:
        """Return what ``parse`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``text`` gave."""
        return cls(**json.loads(text))
