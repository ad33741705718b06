"""The fingerprint: equal on nodes that would forward alike, different on all others."""

import random
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState, fingerprints
from tests.packet import bench

WEB = bench.service(bench.VIP4, "tcp", 80, "web")
MEMBERS = tuple(bench.member(4, n, weight=n) for n in range(11, 16))
WEB_POOL = bench.pool("web", MEMBERS)
STATE = bench.forwarding([WEB], [WEB_POOL])


def fingerprint(state: Forwarding, service: ServiceState) -> str:
    """The service's fingerprint in a state that has it."""
    others = tuple(s for s in state.services if s.name != service.name)
    return fingerprints(replace(state, services=(*others, service)))[service.name]


PRINT = fingerprint(STATE, WEB)


def changed_member(**changes: Any) -> Forwarding:
    members = (replace(MEMBERS[0], **changes), *MEMBERS[1:])
    return replace(STATE, pools=(replace(WEB_POOL, members=members),))


def test_it_is_16_hex_digits() -> None:
    assert len(PRINT) == 16
    assert int(PRINT, 16) >= 0


def test_the_order_of_the_file_changes_nothing() -> None:
    shuffled = random.Random(1).sample(MEMBERS, len(MEMBERS))
    assert shuffled != list(MEMBERS)
    other = bench.service(bench.VIP6, "udp", 53, "dns")
    dns = bench.pool("dns", [bench.member(6, 1)])
    state = bench.forwarding([other, WEB], [dns, replace(WEB_POOL, members=tuple(shuffled))])
    assert fingerprint(state, WEB) == PRINT


def another_path(member: Member) -> Member:
    """The same backend as another node sees it: other MACs, source, ring and MTU."""
    hop = PathSpec(
        b"\2\2\2\2\2\2", b"\4\4\4\4\4\4", ip_address("10.9.9.9"), member.address, tx=5, mtu=1400
    )
    return replace(member, paths=(hop, hop))


def test_what_a_node_sees_alone_changes_nothing() -> None:
    members = tuple(another_path(member) for member in MEMBERS)
    state = replace(STATE, pools=(replace(WEB_POOL, members=members),))
    assert fingerprint(state, replace(WEB, name="another name")) == PRINT


@pytest.mark.parametrize(
    ("what", "state", "service"),
    [
        ("hash key", replace(STATE, hash_key=bytes(16)), WEB),
        ("table size", replace(STATE, pools=(replace(WEB_POOL, table_size=257),)), WEB),
        ("a name", changed_member(name="other"), WEB),
        ("an address", changed_member(address=ip_address("10.0.0.99")), WEB),
        ("a weight", changed_member(weight=1), WEB),
        ("no path", changed_member(paths=()), WEB),
        ("one less", replace(STATE, pools=(replace(WEB_POOL, members=MEMBERS[1:]),)), WEB),
        ("VIP", STATE, replace(WEB, vip=bench.VIP6)),
        ("protocol", STATE, replace(WEB, protocol="udp")),
        ("port", STATE, replace(WEB, port=0)),
        ("affinity", STATE, replace(WEB, affinity="source")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_everything_that_decides_is_in_it(
    what: str, state: Forwarding, service: ServiceState
) -> None:
    assert fingerprint(state, service) != PRINT


def test_names_cannot_be_shifted_into_addresses() -> None:
    """No two lists of facts have one text."""

    def of(name: str) -> str:
        member = bench.member(4, 11)
        return fingerprint(
            bench.forwarding([WEB], [PoolState("web", 251, (replace(member, name=name),))]), WEB
        )

    assert len({of(name) for name in ("a", 'a","b', "a,b", "a\\", "[a]")}) == 5


def test_a_backend_without_a_path_counts_as_drained() -> None:
    assert fingerprint(changed_member(paths=()), WEB) == fingerprint(changed_member(weight=0), WEB)
