"""What ``lbfwd trace --live`` tells of a marked packet. Frozen models, JSON by pydantic."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lbfwd.config import IPAddress

LONGEST_WATCH_S = 5.0


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LiveWatch(_Model):
    """The node looks for the token; ``seconds``: for so long from now."""

    node: str
    token: str
    seconds: float


class LivePacket(_Model):
    """How the marked packet went through the node. Empty texts: there was none."""

    worker: int
    cpu: int
    generation: int
    seen_at: datetime
    received_on: str
    """Interfaces, by their names."""
    sent_on: str
    outcome: Literal["forwarded", "answered", "dropped"]
    reason: str
    """Why it is not forwarded (docs/drop-reasons.md); empty when it is."""
    chosen_by: Literal["flow_table", "maglev_table", "nobody"]
    service: str
    pool: str
    backend: str
    address: IPAddress | None
    """Of the backend."""


class LiveReport(_Model):
    """What a node says of a token; ``packet`` None: no worker has seen it."""

    node: str
    token: str
    packet: LivePacket | None
