"""What is done and told when a node changes; real sockets are tests/topology/capture."""

from collections.abc import Callable

import pytest

from lbfwd.capture.aim import Seen, Taken
from lbfwd.capture.pursuit import Pursuit
from lbfwd.capture.selection import Asked, CaptureError, select
from lbfwd.supervisor.status import Status
from tests.unit.capture.site import VIP4, WEB_A, backend, service, status


class Aim:
    """Takes any node that has the service "web"; its sockets are names."""

    def __init__(self) -> None:
        self.contents: frozenset[str] = frozenset()
        self.failed: tuple[str, ...] = ()

    def take(self, seen: Seen) -> Taken:
        self.contents = frozenset()
        self.contents = select(seen.status, Asked(service="web")).contents()
        return Taken((f"tap {seen.status.generation}",), self.failed)  # type: ignore[arg-type]


class News:
    """What a follower finds, one after another."""

    def __init__(self) -> None:
        self.coming: list[Seen | CaptureError | None] = []

    def news(self) -> Seen | None:
        found = self.coming.pop(0) if self.coming else None
        if isinstance(found, CaptureError):
            raise found
        return found


def at(generation: int, **changed: object) -> Seen:
    return Seen(status().model_copy(update={"generation": generation} | changed), frozenset())


def with_backends(count: int) -> dict[str, object]:
    first, *others = status().pools
    more = tuple(backend(f"b{n:02}", WEB_A + 1 + n) for n in range(count))
    return {"pools": (first.model_copy(update={"backends": first.backends + more}), *others)}


WITHOUT_WEB = {"services": (service("dns", VIP4, "udp", 53, "dns"),)}
Play = tuple[Pursuit, Aim, News, list[str], list[Status]]


@pytest.fixture
def play() -> Play:
    aim, news, said, taken = Aim(), News(), [], []
    pursuit = Pursuit(
        aim,  # type: ignore[arg-type]
        news,  # type: ignore[arg-type]
        lambda seen: taken.append(seen.status),
        said.append,
    )
    pursuit.begin(at(1))
    return pursuit, aim, news, said, taken


def test_a_node_that_stays_as_it_is(play: Play) -> None:
    pursuit, _aim, news, said, taken = play
    assert (pursuit.follow(), pursuit.follow()) == (("tap 1",), ())
    news.coming = [at(2)]  # a generation that changes nothing of what is captured
    assert pursuit.follow() == ("tap 2",)
    assert (said, pursuit.changes, len(taken)) == ([], 0, 2)


def test_what_comes_and_goes_is_told(play: Play) -> None:
    pursuit, _aim, news, said, _taken = play
    pursuit.follow()
    news.coming = [at(2, **with_backends(1)), at(3, **with_backends(10)), at(4)]
    for _turn in range(3):
        pursuit.follow()
    assert said[0] == "generation 2: also captures backend web/b00 (10.0.0.12)"
    assert said[1].startswith("generation 3: also captures backend web/b01 (10.0.0.13), ")
    assert said[1].endswith(" and 1 more")
    assert said[2].startswith("generation 4: no more: backend web/b00")
    assert pursuit.changes == 3


def test_a_service_that_goes_is_told_until_it_is_back(play: Play) -> None:
    pursuit, _aim, news, said, taken = play
    pursuit.follow()
    news.coming = [at(2, **WITHOUT_WEB), at(2, **WITHOUT_WEB), at(3)]
    assert [pursuit.follow() for _turn in range(2)] == [(), ()]
    gone = "generation 2: --service web: no such service; nothing is captured until there is"
    assert (said, pursuit.trouble) == ([gone], gone)
    assert pursuit.follow() == ("tap 3",)
    assert said[1] == "captures again what was asked for"
    assert "also captures" in said[2]
    assert (pursuit.trouble, len(taken)) == ("", 2)


def test_a_node_that_does_not_answer_is_told_once(play: Play) -> None:
    pursuit, aim, news, said, _taken = play
    pursuit.follow()
    news.coming = [CaptureError("no lbfwd runs there"), CaptureError("no lbfwd runs there"), at(1)]
    before = aim.contents
    for _turn in range(3):
        pursuit.follow()
    assert said == [
        "no lbfwd runs there; the capture goes on with what it knows",
        "captures again what was asked for",
    ]
    assert aim.contents == before


def test_an_interface_that_cannot_be_captured(play: Play) -> None:
    pursuit, aim, news, said, _taken = play
    pursuit.follow()
    aim.failed = ("capture on n2: no such interface",)
    news.coming = [at(2)]
    assert pursuit.follow() == ("tap 2",), "the others are"
    assert said == ["capture on n2: no such interface"]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda aim: setattr(aim, "failed", ("capture on n2: no such interface",)), "n2: no such"),
        (lambda aim: setattr(aim, "take", lambda _seen: Taken((), ())), "no interface of the node"),
    ],
)
def test_a_bad_beginning_is_an_error(spoil: Callable[[Aim], None], text: str) -> None:
    aim = Aim()
    spoil(aim)
    pursuit = Pursuit(aim, News(), lambda _seen: None, lambda _text: None)  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match=text):
        pursuit.begin(at(1))
