"""Each check of a node: silent about the good one, and right about what is wrong."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from lbfwd import __version__
from lbfwd.config import Problem
from lbfwd.config.hardware import Hardware
from lbfwd.config.warn import LocalAddress
from lbfwd.doctor import daemon, interfaces, mtu, node, paths, tunnel
from lbfwd.doctor.facts import Irq, Offloads, Secret
from lbfwd.doctor.run import NODE, examine_node
from lbfwd.health.rp_filter import Finding as Blocked
from lbfwd.supervisor.status import HoleStatus, RegistrationStatus, RingStatus, Status
from tests.unit.doctor.nodes import GOOD, HOST, VIP, config, hop, pool_with, said, status


@pytest.mark.parametrize("check", NODE, ids=lambda check: check.__name__)
def test_the_good_node(check) -> None:  # type: ignore[no-untyped-def]
    found = list(check(GOOD))
    assert found
    assert {finding.level for finding in found} == {"ok"}


def test_everything_at_once() -> None:
    assert {finding.level for finding in examine_node(GOOD)} == {"ok"}
    stopped = replace(GOOD, status=None, later=None, refused="no lbfwd runs there")
    broken = [finding for finding in examine_node(stopped) if finding.level == "broken"]
    assert [(f.check, f.what, f.fix) for f in broken] == [
        ("process", "no lbfwd runs there", "systemctl start lbfwd")
    ]


def test_a_file_that_is_refused() -> None:
    problem = Problem("lbfwd.toml", "workers.cpus", "[9]", "not online: 9")
    (finding,) = said(daemon.configuration, config=None, problems=(problem,))
    assert (finding.level, finding.what) == ("broken", str(problem))
    (finding,) = said(daemon.configuration, warnings=(problem,))
    assert (finding.level, finding.what) == ("warn", str(problem))
    # What needs a configuration says nothing then.
    assert {f.level for check in NODE for f in said(check, config=None)} <= {"ok"}


def test_process() -> None:
    (finding,) = said(daemon.process, status=status(version="0.0.1"))
    assert (finding.level, finding.fix) == ("warn", "systemctl restart lbfwd")
    worker = status().workers[0].model_copy(update={"state": "abandoned"})
    (finding,) = said(daemon.process, status=status(workers=(worker,)))
    assert finding.level == "broken"
    assert "worker on cpu 2 was given up" in finding.what


def test_another_version_whose_status_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    older = status(version="0.0.1").model_dump(mode="json") | {"workers": [{"slot": 0}]}
    monkeypatch.setattr(node, "request", lambda *_question: json.dumps(older).encode())
    facts = node.collect(tmp_path, "", str(tmp_path / "none.toml"))
    (finding,) = daemon.process(facts)
    assert (finding.level, finding.fix) == ("warn", "systemctl restart lbfwd")
    assert finding.what == f"lbfwd 0.0.1 runs, {__version__} is installed"
    assert {f.check for f in examine_node(facts) if f.level == "broken"} == {"configuration"}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"carrier": False}, "eth0 has no carrier"),
        ({"state": "down"}, "eth0 is down"),
        ({"state": "gone"}, "eth0 is gone"),
    ],
)
def test_an_interface_that_is_not_there(fields: dict[str, object], what: str) -> None:
    interface = status().interfaces[0].model_copy(update=fields)
    (finding,) = said(daemon.process, status=status(interfaces=(interface,)))
    assert (finding.level, finding.what) == ("broken", what)


@pytest.mark.parametrize(
    ("mode", "owner", "level"), [(0o600, 0, ""), (0o640, 0, "broken"), (0o604, 0, "broken"),
                                 (0o400, 0, ""), (0o600, 1000, "warn")],
)  # fmt: skip
def test_secret(mode: int, owner: int, level: str) -> None:
    found = said(daemon.secret, secret=Secret("/etc/key", mode, owner))
    assert [finding.level for finding in found] == [level] * bool(level)


def test_cores() -> None:
    (finding,) = said(daemon.cores, isolated=frozenset({2}))
    assert (finding.level, finding.what) == ("warn", "cpus 3 are not isolated")
    (finding,) = said(daemon.cores, governors={2: "powersave", 3: "performance"})
    assert finding.what == "cpus 2: governor powersave"


def test_limits() -> None:
    interface = status().interfaces[0].model_copy(update={"admits_all": True})
    (finding,) = said(daemon.limits, status=status(interfaces=(interface,)))
    assert finding.fix.startswith("sysctl -w net.core.optmem_max=1048576")
    (finding,) = said(daemon.limits, sysctls={"ipv4/neigh/default/gc_thresh3": 257})
    assert "2 IPv4 backends, and net.ipv4.neigh.default.gc_thresh3 = 257" in finding.what
    assert not said(daemon.limits, sysctls={"ipv4/neigh/default/gc_thresh3": 258})
    (finding,) = said(daemon.limits, files_limit=256)
    assert "may open 256 files" in finding.what
    small = {"core/wmem_max": 212992}
    assert not said(daemon.limits, sysctls=small)
    (finding,) = said(daemon.limits, sysctls=small, privileged=False)
    assert "a TX ring holds 8388608 bytes" in finding.what


ETCD = '[etcd]\nendpoints = ["http://10.0.0.9:2379"]'
REGISTER = """
[pool.register]
allow = ["10.0.0.0/24"]
[[service]]
name = "other"
vip = "192.0.2.11"
protocol = "tcp"
port = 80
pool = "web"
"""


def registered(count: int) -> Status:
    """A status with so many backends that registered."""
    first, entry = status().pools[0].backends[0], {"source": "etcd", "state": "active"}
    said = RegistrationStatus(since=first.since, **entry)  # type: ignore[arg-type]
    backends = tuple(
        first.model_copy(
            update={"name": f"r{n}", "address": ip_address(f"10.0.0.{n}"), "registration": said}
        )
        for n in range(100, 100 + count)
    )
    return status(pools=(status().pools[0].model_copy(update={"backends": backends}),))


def test_who_registered_is_asked_for_a_token_whatever_the_check() -> None:
    """100 of them, for 2 VIPs: 200 sockets, beside 4 for rings and 512 to spare."""
    open_pool = config(ETCD, REGISTER, check="none")
    facts = {"config": open_pool, "status": registered(100)}
    assert not said(daemon.limits, files_limit=716, **facts)
    (finding,) = said(daemon.limits, files_limit=715, **facts)
    assert "may open 715 files, and needs up to 716" in finding.what
    blocked = Blocked(VIP, "eth0", "rp_filter of eth0 is 1 (strict)", "sysctl -w x=2")
    assert len(said(paths.answers, answers=(blocked,), **facts)) == 1
    (finding,) = said(paths.detection, **facts)
    assert finding.what == "pool web: no health check", "nobody asks those of the file"


def test_who_registered_is_a_neighbour_too() -> None:
    """100 of them, 2 of the file, 256 to spare."""
    thresh, facts = "ipv4/neigh/default/gc_thresh3", {"status": registered(100)}
    assert not said(daemon.limits, sysctls={thresh: 358}, **facts)
    (finding,) = said(daemon.limits, sysctls={thresh: 357}, **facts)
    assert finding.what.startswith("102 IPv4 backends")


def test_a_pool_of_registered_ones_alone_needs_no_check() -> None:
    mixed = config(ETCD, REGISTER, check="none")
    pools = tuple(pool.model_copy(update={"backends": ()}) for pool in mixed.pools)
    assert not said(paths.detection, config=mixed.model_copy(update={"pools": pools}))


def test_a_vip_on_the_node() -> None:
    own = LocalAddress("lo", VIP, ip_network("192.0.2.10/32"))
    (finding,) = said(paths.addresses, local=(own,))
    assert (finding.level, finding.fix) == ("broken", "ip address del 192.0.2.10/32 dev lo")


def test_guard() -> None:
    (finding,) = said(paths.guard, guard="table netdev lbfwd is missing or changed")
    assert finding.level == "broken"
    assert not said(paths.guard, status=None, guard="never looked at")


def test_answers() -> None:
    blocked = Blocked(VIP, "eth0", "rp_filter of eth0 is 1 (strict)", "sysctl -w x=2")
    (finding,) = said(paths.answers, answers=(blocked,))
    assert (finding.level, finding.what, finding.fix) == ("broken", blocked.reason, blocked.fix)
    direct = config(health='via = "direct"')
    assert not said(paths.answers, answers=(blocked,), config=direct)


def test_next_hops() -> None:
    reason = "next hop 10.0.0.11 on eth0: neighbour FAILED"
    (finding,) = said(paths.next_hops, status=pool_with(hops=(), reason=reason))
    assert (finding.level, finding.what) == ("broken", f"pool web, backend a: {reason}")
    assert finding.fix == "ip route get 10.0.0.11; ip neigh show"
    (finding,) = said(paths.next_hops, status=pool_with(reason=reason))
    assert finding.level == "warn"
    base = status().pools[0]
    none = tuple(backend.model_copy(update={"hops": ()}) for backend in base.backends)
    (finding,) = said(
        paths.next_hops, status=status(pools=(base.model_copy(update={"backends": none}),))
    )
    assert (finding.level, finding.what) == ("broken", "pool web: no backend can be reached")


def test_health() -> None:
    down = {"condition": "down", "health_reason": "connection refused"}
    (finding,) = said(paths.health, status=pool_with(**down))
    assert (finding.level, finding.what) == (
        "broken",
        "pool web, backend a: connection refused",
    )
    # Without a way to it, that is what is said.
    assert not said(paths.health, status=pool_with(hops=(), **down))
    (finding,) = said(paths.health, status=pool_with(**down | {"condition": "failed_open"}))
    assert finding.level == "warn"
    assert not said(paths.health, status=pool_with(condition="drained"))


@pytest.mark.parametrize(
    ("health", "seconds"),
    [
        ("interval_ms = 2000\nfall = 3\ntimeout_ms = 1000", None),  # 7 s
        ("interval_ms = 5000\nfall = 3\ntimeout_ms = 1000", "16 s"),
        ("interval_ms = 4000\nfall = 3\ntimeout_ms = 3000", None),  # 15 s
    ],
)
def test_detection(health: str, seconds: str | None) -> None:
    found = said(paths.detection, config=config(health=health))
    assert [seconds in finding.what for finding in found] == [True] * (seconds is not None)


def test_no_detection_at_all() -> None:
    none = config(health="").model_copy(update={})
    pools = tuple(
        pool.model_copy(update={"health": pool.health.model_copy(update={"type": "none"})})
        for pool in none.pools
    )
    (finding,) = said(paths.detection, config=none.model_copy(update={"pools": pools}))
    assert finding.what == "pool web: no health check"


def test_mtu_of_datagrams() -> None:
    service = status().services[0].model_copy(update={"protocol": "udp"})
    (finding,) = said(mtu.mtu, status=status(services=(service,)))
    assert (finding.level, finding.what) == (
        "warn",
        "pool web, backends a, b: tunnel MTU 1476 by eth0",
    )
    assert finding.fix.startswith("ip link set eth0 mtu 1524")


def test_mtu_that_was_learned() -> None:
    (finding,) = said(mtu.mtu, status=pool_with(hops=(hop(mtu=1400),)))
    assert (finding.level, finding.fix) == ("warn", "tracepath -n 10.0.0.11")
    assert finding.what == "pool web, backend a: tunnel MTU 1376 by eth0"


@pytest.mark.parametrize(("size", "level"), [(1303, "broken"), (1304, "")])
def test_mtu_for_ipv6(size: int, level: str) -> None:
    service = status().services[0].model_copy(update={"vip": ip_address("2001:db8::10")})
    interface = status().interfaces[0].model_copy(update={"mtu": size})
    small = pool_with(hops=(hop(mtu=size),)).model_copy(
        update={"services": (service,), "interfaces": (interface,)}
    )
    found = [f for f in said(mtu.mtu, status=small) if "backend a:" in f.what]
    assert [finding.level for finding in found] == [level] * bool(level)


def rings(drops: int):  # type: ignore[no-untyped-def]
    ring = RingStatus(interface="eth0", packets=9, drops=drops, freezes=0)
    return status(workers=(status().workers[0].model_copy(update={"rings": (ring,)}),))


def test_ring_drops() -> None:
    (finding,) = said(interfaces.rings, status=rings(5), later=rings(5))
    assert (finding.level, "5 since lbfwd was started, none now" in finding.what) == ("warn", True)
    (finding,) = said(interfaces.rings, status=rings(5), later=rings(8))
    assert (finding.level, "3 while we looked" in finding.what) == ("broken", True)


def test_hardware_drops() -> None:
    (finding,) = said(interfaces.hardware_drops, nic_drops={"eth0": 7})
    assert finding.what == "eth0: 7 packets since it came up"


@pytest.mark.parametrize(
    ("offloads", "ring", "fix"),
    [
        (Offloads(gro=True), "v3", None),
        (Offloads(gro=True), "v2", "ethtool -K eth0 gro off"),
        (Offloads(lro=True), "v3", "ethtool -K eth0 lro off"),
    ],
)
def test_offloads(offloads: Offloads, ring: str, fix: str | None) -> None:
    found = said(
        interfaces.offloads, offloads={"eth0": offloads}, config=config(f'ring = "{ring}"')
    )
    assert [finding.fix for finding in found] == [fix] * (fix is not None)


@pytest.mark.parametrize(
    ("hardware", "level"),
    [
        (Hardware(queues={"eth0": 1}), "warn"),
        (Hardware(queues={"eth0": 1}, rps_cpus={"eth0": frozenset({2, 3})}), ""),
        (Hardware(), ""),  # not known
    ],
)
def test_queues(hardware: Hardware, level: str) -> None:
    found = said(interfaces.queues, hardware=hardware)
    assert [finding.level for finding in found] == [level] * bool(level)


def test_interrupts() -> None:
    at_one = (Irq(30, frozenset({0}), 5), Irq(31, frozenset({0}), 5))
    (finding,) = said(interfaces.interrupts, irqs={"eth0": at_one})
    assert finding.what == "eth0: all of its 2 interrupts go to cpu 0"
    unused = (Irq(30, frozenset({0}), 5), Irq(31, frozenset({0}), 0))
    assert not said(interfaces.interrupts, irqs={"eth0": unused})
    beside = (Irq(30, frozenset({0}), 5), Irq(31, frozenset({1}), 5))
    assert not said(interfaces.interrupts, irqs={"eth0": beside})
    (finding,) = said(interfaces.interrupts, irqs={"eth0": beside}, config=config('fanout = "cpu"'))
    assert "interrupts go to cpus 0-1, workers are on 2-3" in finding.what
    places = [f"echo {c} > /proc/irq/{n}/smp_affinity_list" for n, c in ((30, 2), (31, 3))]
    assert finding.fix == "; ".join(places)


def with_tunnel(**fields: object) -> Status:
    good = status().tunnel
    assert good is not None
    return status(tunnel=good.model_copy(update=fields))


def test_the_tunnel_of_probes() -> None:
    (finding,) = said(tunnel.tunnel, later=with_tunnel(trouble="lbfwd-probe is gone"))
    assert (finding.level, finding.what) == ("broken", "lbfwd-probe is gone")
    hole = HoleStatus(backend=VIP, reason="packets are lost", fix="ip route add … mtu 1400")
    (finding,) = said(tunnel.tunnel, later=with_tunnel(mtu_holes=(hole,)))
    assert (finding.level, finding.what, finding.fix) == ("warn", hole.reason, hole.fix)
    dropped = {"stray": 0, "too_big": 0, "unsent": 4}
    (finding,) = said(tunnel.tunnel, later=with_tunnel(dropped=dropped))
    assert finding.what == "4 packets of probes were not sent within a second: unsent"
    assert not said(tunnel.tunnel, status=with_tunnel(dropped=dropped), later=status())
    assert not list(tunnel.tunnel(replace(GOOD, status=status(tunnel=None))))


def test_the_host_is_looked_at_too() -> None:
    old = replace(GOOD, host=replace(HOST, kernel="6.1.0"))
    assert [f.check for f in examine_node(old) if f.level == "warn"] == ["kernel", "kernel"]
