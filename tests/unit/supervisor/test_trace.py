"""Who chose a backend, in a sentence."""

from typing import Any

import pytest

from lbfwd.explain import Explanation, Sighting
from lbfwd.supervisor.trace import choice, outcome
from tests.unit.api.values import backend

NAMES = {(0, 1): ("web", "a"), (1, 1): ("web", "b")}
TABLE = "the Maglev table names it"


def seen(worker: int, slot: int = 0, age_s: int = 3, incarnation: int = 1) -> Sighting:
    return Sighting(worker, slot, incarnation, "tcp", age_s, 1, True)


def found(**facts: Any) -> Explanation:
    plain: dict[str, Any] = {
        "generation": 7, "key": b"k", "hash": 1, "service": 0, "table_size": 251, "bucket": 9,
        "table_backend": 0, "backend": 0, "reason": "none", "events": (), "sightings": (),
        "sent": (),
    }  # fmt: skip
    return Explanation(**plain | facts)


NEW = found(events=("flow_new",))
MINE = found(sightings=(seen(1),))
OTHERS = found(sightings=(seen(0),), events=("flow_found_elsewhere",), table_backend=1)
BOTH = found(sightings=(seen(0, 0, 3), seen(1, 0, 3)))
OLD_AND_NEW = found(sightings=(seen(0, 1, 60), seen(1, 0, 3)))
GONE = found(sightings=(seen(0, 1),), events=("flow_redirected",))
REUSED = found(sightings=(seen(0, 1, 3, 5),), events=("flow_redirected",))


@pytest.mark.parametrize(
    ("facts", "by", "because"),
    [
        (NEW, "maglev_table", f"no worker has a usable entry for the flow; {TABLE}"),
        (found(), "maglev_table", f"no worker has a usable entry for the flow; {TABLE}"),
        (MINE, "flow_table", "the flow table of worker 1 has it"),
        (OTHERS, "flow_table",
         "the flow table of worker 0 has it; new flows of this bucket go elsewhere"),
        (BOTH, "flow_table", "the flow table of worker 1 has it"),
        (OLD_AND_NEW, "flow_table", "the flow table of worker 1 has it"),
        (GONE, "maglev_table", f"its entry names backend b, which may not serve it; {TABLE}"),
        (REUSED, "maglev_table",
         f"its entry names a backend that is gone, which may not serve it; {TABLE}"),
    ],
)  # fmt: skip
def test_a_choice_is_explained(facts: Explanation, by: str, because: str) -> None:
    chosen = choice(facts, 1, NAMES, backend("a", 251))
    assert (chosen.by, chosen.because) == (by, because)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("drained", "; it drains: live flows stay"),
        ("failed_open", "; its checks fail, but the pool"),
    ],
)
def test_a_backend_that_is_not_simply_up_is_told(condition: str, words: str) -> None:
    standing = backend("a", 251).model_copy(update={"condition": condition})
    assert words in choice(MINE, 1, NAMES, standing).because


@pytest.mark.parametrize(
    ("facts", "because"),
    [
        ({"generation": 0}, "nothing is published yet"),
        ({"reason": "no_vip"}, "the destination is no VIP of this node"),
        ({"reason": "echo_answered"}, "the node answers echo requests itself"),
        ({"reason": "truncated"}, "truncated"),
    ],
)
def test_where_nobody_was_chosen_the_reason_is_told(facts: dict[str, Any], because: str) -> None:
    chosen = choice(found(backend=None, **facts), 1, NAMES, None)
    assert (chosen.by, chosen.because) == ("nobody", because)


def test_an_answer_of_the_nodes_is_no_loss() -> None:
    assert [outcome(r) for r in ("none", "echo_answered", "rejected", "no_vip")] == [
        "forwarded", "answered", "answered", "dropped",
    ]  # fmt: skip
