"""The published table of packets names every counter, and no other."""

import re
from pathlib import Path

from lbfwd import ring

TEXT = (Path(__file__).parents[2] / "docs" / "packets.md").read_text(encoding="utf-8")
WORDS = {"drops", "affinity", "source_entropy"}  # of the configuration and of the status


def names() -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)`", TEXT)) - WORDS


def test_every_drop_reason_is_where_a_packet_ends() -> None:
    """In a row's last column."""
    last = set(re.findall(r"\| `(\w+)` \|$", TEXT, re.M))
    assert last == set(ring.DROP_REASONS[1:])


def test_every_event_is_named() -> None:
    assert names() - set(ring.DROP_REASONS) == set(ring.EVENTS)
