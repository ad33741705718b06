"""What a node says of itself, to be compared with others of its fleet."""

import hashlib
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from lbfwd.config import Config
from lbfwd.supervisor.status import SharedStatus


class Summary(BaseModel):
    """A node in short. Another version's may have more fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    node: str
    started: datetime
    ready: datetime | None
    """When it began to forward; None: not yet."""
    generation: int
    configuration: str
    """Digest of pools, services and flows: equal on all nodes that are configured alike."""
    fingerprints: dict[str, str]
    """By service: equal on all nodes that forward it alike at this moment."""
    shared: SharedStatus | None
    nodes: dict[str, str]
    """``[fleet] nodes``: by name, where each can be asked."""


def digest(config: Config) -> str:
    """Return 16 hex digits over what nodes of a fleet have in common; the order says nothing.

    BLAKE2b, keyed with the fleet's hash key, so that nodes with different keys differ, too. Blocks
    for long configurations.
    """
    made = hashlib.blake2b(key=config.hash_key.raw, digest_size=8)
    for part in (
        *sorted(config.pools, key=lambda pool: pool.name),
        *sorted(config.services, key=lambda service: service.name),
        config.flows,
    ):
        made.update(part.model_dump_json().encode())
    return made.hexdigest()
