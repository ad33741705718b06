"""Which VIPs are announced: services, pools, hold-downs."""

from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from lbfwd.config import Service
from lbfwd.forwarding import Member, PathSpec, PoolState
from lbfwd.supervisor.announcement import (
    GRACE_S,
    HOLD_S,
    Claim,
    Health,
    Presence,
    claims,
    due,
    serving,
    step,
)

VIP, OTHER = ip_address("192.0.2.10"), ip_address("2001:db8::10")
A = ip_address("10.0.0.1")
PATH = PathSpec(bytes(6), bytes(6), A, A, 0, 1500)
GOOD, BAD = Claim(wanted=True, reason=""), Claim(wanted=True, reason="no backend serves")
UNWANTED = Claim(wanted=False, reason="never")


def service(pool: str, announce: str = "when_healthy", port: int = 80) -> Service:
    return Service(vip=VIP, protocol="tcp", port=port, pool=pool, announce=announce)  # type: ignore[arg-type]


def pool(name: str, *members: Member) -> PoolState:
    return PoolState(name, 251, members)


SERVES = pool("serves", Member("a", A, 1, ()), Member("b", A, 1, (PATH,)))
DRAINED = pool("drained", Member("a", A, 0, (PATH,)))
DOWN = pool("down", Member("a", A, 1, ()))


@pytest.mark.parametrize(
    ("services", "wanted", "reason"),
    [
        ([service("serves")], True, ""),
        ([service("drained")], True, ""),  # its live flows stay
        ([service("down")], True, "no backend of pool down serves"),
        ([service("absent")], True, "no backend of pool absent serves"),
        ([service("down", "always")], True, ""),
        ([service("serves", "never")], False, 'announce = "never"'),
        ([service("down"), service("serves", port=81)], True, ""),
        ([service("serves"), service("down", port=81)], True, ""),
        ([service("serves", "never"), service("down", port=81)], True, "no backend of pool down"),
        ([service("down"), service("serves", "never", port=81)], True, "no backend of pool down"),
        ([service("serves", "never"), service("serves", port=81)], True, ""),
    ],
)
def test_one_service_that_can_be_served_is_enough(
    services: Sequence[Service], wanted: bool, reason: str
) -> None:
    found = claims(services, serving([SERVES, DRAINED, DOWN]))
    assert found.keys() == {VIP}
    assert found[VIP].wanted is wanted
    assert found[VIP].reason.startswith(reason)
    assert bool(found[VIP].reason) == bool(reason)


def story(*chapters: tuple[float, Claim, str]) -> list[Presence]:
    """What becomes of one VIP: at each time its claim and the node's reason."""
    told: list[Presence] = []
    for now, claim, node in chapters:
        before = {VIP: told[-1]} if told else {}
        told.append(step(before, {VIP: claim}, node, now)[VIP])
    return told


def announced(*chapters: tuple[float, Claim, str]) -> list[bool]:
    return [presence.announced for presence in story(*chapters)]


def test_what_can_be_served_is_announced_at_once() -> None:
    assert announced((0, GOOD, "")) == [True]
    assert announced((0, BAD, ""), (1, GOOD, "")) == [False, True]


def test_what_was_withdrawn_is_held_down() -> None:
    told = story((0, GOOD, ""), (1, BAD, ""), (2, GOOD, ""), (6.9, GOOD, ""), (7, GOOD, ""))
    assert [p.announced for p in told] == [True, False, False, False, True]
    assert told[1].reason == BAD.reason
    assert "5 s" in told[2].reason
    assert HOLD_S == 5
    assert list(due({VIP: told[3]})) == [7]
    assert list(due({VIP: told[4]})) == []


def test_the_hold_down_begins_again_with_each_failure() -> None:
    chapters = ((0, GOOD), (1, BAD), (2, GOOD), (6, BAD), (7, GOOD), (11, GOOD), (12, GOOD))
    told = announced(*((at, claim, "") for at, claim in chapters))
    assert told == [True, False, False, False, False, False, True]


def test_a_node_that_cannot_forward_announces_nothing() -> None:
    told = story((0, GOOD, ""), (1, GOOD, "no worker forwards"))
    assert told[1] == Presence(announced=False, reason="no worker forwards", fell=True)


def test_who_asked_for_it_is_not_held_down() -> None:
    assert announced((0, GOOD, ""), (1, UNWANTED, ""), (1.1, GOOD, "")) == [True, False, True]
    assert announced((0, GOOD, ""), (1, BAD, ""), (2, UNWANTED, ""), (3, GOOD, ""))[-1]


def test_vips_come_and_go_with_their_claims() -> None:
    before = step({}, {VIP: GOOD}, "", 0)
    after = step(before, {OTHER: GOOD}, "", 1)
    assert after == {OTHER: Presence(announced=True)}


def test_a_node_may_recover_before_anything_is_withdrawn() -> None:
    health = Health()
    assert not health.verdict(0)
    health = health.seen("no worker forwards", 10.0)
    assert not health.verdict(10.0)
    health = health.seen("no worker forwards", 11.0)
    assert not health.verdict(10 + GRACE_S - 0.1)
    assert health.verdict(10 + GRACE_S) == "no worker forwards"
    health = health.seen("", 12.5).seen("no interface receives", 13.0)
    assert not health.verdict(14.0)
    assert health.verdict(15.0) == "no interface receives"
