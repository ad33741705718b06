"""A reading for tests: two pools, three services, two workers."""

from datetime import UTC, datetime
from ipaddress import ip_address

from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState
from lbfwd.health.outcome import Outcome
from lbfwd.health.standing import Condition, Standing
from lbfwd.metrics.reading import Reading
from lbfwd.metrics.tally import ProbeTally, ReloadTally
from lbfwd.slots import Seat, Tenants
from lbfwd.supervisor.census import Flows
from lbfwd.supervisor.status import (
    BlockedStatus,
    InterfaceStatus,
    RegistrationStatus,
    RingStatus,
    TunnelStatus,
    WorkerStatus,
)
from lbfwd.tables import AllTenants, Counts
from tests.unit.api import values

A, B, C = (ip_address(f"10.0.0.{n}") for n in (11, 12, 13))
VIP = ip_address("192.0.2.10")
PATH = PathSpec(bytes(6), bytes(6), ip_address("10.0.0.1"), A, 0, 1500)


def standing(condition: Condition, weight: int = 1) -> Standing:
    return Standing(condition, weight, True, "", 0.0)


def worker(slot: int, rings: tuple[RingStatus, ...]) -> WorkerStatus:
    state = "running" if slot == 0 else "abandoned"
    fields = {"slot": slot, "cpu": 2 + slot, "state": state, "frames": 999, "rings": rings}
    return values.status().workers[0].model_copy(update=fields)


def interface() -> InterfaceStatus:
    return values.status().interfaces[0].model_copy(update={"carrier": True})


def forwarding() -> Forwarding:
    return Forwarding(
        hash_key=bytes(16),
        services=(
            ServiceState("http", VIP, "tcp", 80, "5-tuple", "web"),
            ServiceState("any", VIP, "udp", 0, "source", "web"),
            ServiceState("new", VIP, "tcp", 81, "5-tuple", "slow"),
        ),
        pools=(
            PoolState("web", 251, (Member("a", A, 2, (PATH,)), Member("b", B, 3, ()))),
            PoolState("slow", 251, (Member("c", C, 5, (PATH,)),)),
        ),
    )


def probes() -> ProbeTally:
    tally = ProbeTally()
    tally.keep(["web"])
    tally.count(["web"], Outcome("passed", duration_s=0.001))
    tally.count(["web"], Outcome("passed", duration_s=0.003))
    tally.count(["web"], Outcome("timeout", "no answer", 60.0))
    return tally


def counts() -> Counts:
    """Service ``http`` sits in slot 1, and had 10 packets of 100 bytes before it came."""
    services = Tenants({(VIP, "tcp", 80): Seat(1, 2), (VIP, "udp", 0): Seat(0, 1),
                        (VIP, "tcp", 81): Seat(2, 1)},
                       {(VIP, "tcp", 80): (10, 100, 1), (VIP, "udp", 0): (0, 0, 0),
                        (VIP, "tcp", 81): (0, 0, 0)})  # fmt: skip
    keys = (("web", "a", A), ("web", "b", B), ("slow", "c", C))
    backends = Tenants(
        {key: Seat(slot, 1) for slot, key in enumerate(keys)}, dict.fromkeys(keys, (0, 0, 0))
    )
    return Counts(
        AllTenants(forwarding().services, services, backends),
        ([0, 24700, 0], [0, 2**53 + 101, 0], [0, 8, 0]),
        ([12345, 1, 0], [67890, 2, 0], [6, 1, 0]),
        drops={"not_ip": 0, "fragment": 17},
        events={"flow_new": 23, "reset_sent": 0},
    )


def reading() -> Reading:
    rings = (RingStatus(interface="eth0", packets=600, drops=5, freezes=1),)
    return Reading(
        version="9.9",
        generation=42,
        forwarding=forwarding(),
        standings={("web", "a"): standing("up"), ("web", "b"): standing("down")},
        scales={"web": 1, "slow": 10},
        fingerprints={"http": "00112233aabbccdd", "any": "ff", "new": "ee"},
        configuration="0123456789abcdef",
        shared=values.status().shared,
        registrations={
            ("web", "a"): RegistrationStatus(
                source="etcd", state="active", since=datetime(2026, 1, 2, tzinfo=UTC)
            )
        },
        counts=counts(),
        flows=Flows({}, {(VIP, "tcp", 80): 7}, {("web", "a", A): 7}, (5, 2)),
        flows_capacity=1024,
        workers=(worker(0, rings), worker(1, ())),
        interfaces=(interface(),),
        vips=values.status().vips,
        peers=values.status().peers,
        probes=probes().by_pool(),
        tunnel=TunnelStatus(
            trouble="",
            blocked=(BlockedStatus(vip=VIP, interface="eth0", reason="no", fix="yes"),),
            mtu_holes=(),
            packets=120,
            bytes=7200,
            dropped={"stray": 0, "too_big": 1, "unsent": 2},
        ),
        reloads=ReloadTally(),
    )
