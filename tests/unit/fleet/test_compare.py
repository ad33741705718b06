"""Do nodes agree? By hand-made answers."""

from datetime import UTC, datetime

from lbfwd.fleet.ask import Answer
from lbfwd.fleet.compare import Differences, compare
from lbfwd.supervisor.status import SharedStatus
from lbfwd.supervisor.summary import Summary, digest
from tests.unit.supervisor.build import config

GOOD = SharedStatus(key="/k", revision=7, seen=7, problems=(), etcd_problem="")


def answer(
    node: str, digest: str = "d", shared: SharedStatus | None = GOOD, **fingerprints: str
) -> Answer[Summary]:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    summary = Summary(
        version="1",
        node=node,
        started=when,
        ready=when,
        generation=1,
        configuration=digest,
        fingerprints=fingerprints,
        shared=shared,
        nodes={},
    )
    return Answer(node, summary)


def test_equal_nodes_agree() -> None:
    found = compare([answer("a", web="1"), answer("b", web="1")])
    assert found == [Differences("a"), Differences("b")]
    assert not any(each.any for each in found)


def test_one_against_most_is_the_odd_one() -> None:
    answers = [answer("a", web="1", dns="5"), answer("b", web="2"), answer("c", web="1", dns="5")]
    assert compare(answers) == [
        Differences("a"),
        Differences("b", services=("dns", "web")),
        Differences("c"),
    ]


def test_where_there_are_no_most_each_differs() -> None:
    found = compare([answer("a", "d1", web="1"), answer("b", "d2", web="2")])
    assert [(each.configuration, each.services) for each in found] == [(True, ("web",))] * 2


def test_who_does_not_answer_or_refused_what_was_pushed_has_a_problem() -> None:
    refused = GOOD.model_copy(update={"seen": 8, "problems": ("bad",)})
    found = compare([answer("a"), Answer("b", None, ("no route",)), answer("c", shared=refused)])
    assert [each.problems for each in found] == [(), ("no route",), ("bad",)]
    assert [each.any for each in found] == [False, True, True]


def test_a_node_that_answers_in_the_place_of_another_is_named() -> None:
    (found,) = compare([Answer("b", answer("a").found)])
    assert found.problems == ("calls itself a",)


def test_the_digest_is_of_what_nodes_have_in_common() -> None:
    first = digest(config())
    assert len(first) == 16
    assert (
        digest(config(('name = "lb1"', 'name = "lb2"'), ("cpus = [0, 1]", "cpus = [2]"))) == first
    )
    different = (
        config(("weight = 2", "weight = 3")),
        config(("port = 80", "port = 81")),
        config(("0c0d0e0f", "0c0d0e00")),
        config(("[workers]", "[flows]\ntcp_idle_s = 1\n[workers]")),
    )
    assert len({first, *map(digest, different)}) == 5
    swapped = config()
    assert digest(swapped.model_copy(update={"services": swapped.services[::-1]})) == first
