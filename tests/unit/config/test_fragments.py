"""``[fleet] fragments = "peer"``: what it needs."""

import pytest

from lbfwd.config import ConfigError, parse
from tests.unit.config.test_shared import OWN, SHARED

PEER = """
[fleet]
fragments = "peer"
nodes = [
  { name = "lb1", addresses = ["203.0.113.10", "2001:db8::1"], api = "203.0.113.10:9108" },
  { name = "lb2", addresses = ["203.0.113.11"], api = "203.0.113.11:9108" },
  { name = "lb3", addresses = ["2001:db8::3"], api = "[2001:db8::3]:9108" },
]
"""


def problems(text: str, own: str = OWN) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(own + SHARED + text, "f")
    return [str(problem) for problem in caught.value.problems]


def test_nodes_of_both_families() -> None:
    """What counts is what this node shares with each: the others may differ."""
    assert parse(OWN + SHARED + PEER, "f").fleet.fragments == "peer"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"peer"', '"remote"', 'fleet.fragments = "remote"'),
        (
            ', addresses = ["203.0.113.11"]',
            "",
            'nodes[1].addresses = []: [fleet] fragments = "peer" hands over to it: an address',
        ),
        (
            ', "2001:db8::1"',
            "",
            'nodes[2].addresses = ["2001:db8::3"]: [fleet] fragments = "peer": this node has no',
        ),
    ],
)
def test_mistakes(old: str, new: str, problem: str) -> None:
    assert old in PEER
    assert any(problem in found for found in problems(PEER.replace(old, new)))


def test_without_nodes_there_is_nobody_to_hand_over_to() -> None:
    (found,) = problems('[fleet]\nfragments = "peer"\n')
    assert found == 'f: fleet.fragments = "peer": needs nodes to hand fragments over to'


@pytest.mark.parametrize("fanout", ["cpu", "queue"])
def test_packets_must_be_spread_by_hash(fanout: str) -> None:
    own = OWN.replace("[workers]", f'[workers]\nfanout = "{fanout}"')
    assert own != OWN
    (found,) = problems(PEER, own)
    assert found.startswith(f'f: workers.fanout = "{fanout}": [fleet] fragments = "peer" needs')
