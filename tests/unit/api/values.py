"""A status for tests."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from lbfwd.config import WorkerSettings
from lbfwd.supervisor.status import (
    BackendStatus,
    HopStatus,
    InterfaceStatus,
    PeerStatus,
    PoolStatus,
    ProbeStatus,
    RingStatus,
    ServiceStatus,
    SharedStatus,
    Status,
    TunnelStatus,
    VipStatus,
    WorkerStatus,
)

HOP = HopStatus(
    interface="eth1",
    gateway=ip_address("10.0.0.1"),
    mac="02:00:00:00:00:01",
    source=ip_address("10.0.0.254"),
    mtu=1500,
)


def backend(name: str, slots: int, reason: str = "") -> BackendStatus:
    return BackendStatus(
        name=name,
        address=ip_address("10.0.0.1"),
        weight=4,
        condition="up" if slots else "down",
        since=datetime.now(UTC) - timedelta(hours=1, seconds=30),
        weight_in_force=0.8 if slots else 0,
        health_reason="" if slots else "tcp 10.0.0.1:80: connection refused",
        probe=ProbeStatus(outcome="passed", duration_ms=1.25) if slots else None,
        usable=slots > 0,
        reason=reason,
        slots=slots,
        hops=(HOP,) if slots else (),
        packets=12345,
        bytes=67890,
        new_flows=6,
        flows=21,
    )


def status() -> Status:
    return Status(
        version="9.9",
        node="lb1",
        pid=77,
        config_file="/etc/lbfwd/lbfwd.toml",
        started=datetime(2026, 1, 2, tzinfo=UTC),
        uptime_s=93784.5,  # 1 day, 2 hours, 3 minutes, 4 seconds
        generation=42,
        workers=(
            WorkerStatus(
                slot=0,
                cpu=2,
                pid=4711,
                state="running",
                restarts=3,
                heartbeat_age_ms=50,
                seen=1000,
                bursts=100,
                waits=90,
                frames=1000,
                sends=95,
                rings=(
                    RingStatus(interface="eth0", packets=600, drops=5, freezes=1),
                    RingStatus(interface="eth2", packets=405, drops=0, freezes=0),
                ),
                settings=WorkerSettings(ring="v2"),
            ),
            WorkerStatus(
                slot=1,
                cpu=3,
                pid=None,
                state="abandoned",
                restarts=5,
                heartbeat_age_ms=0,
                seen=0,
                bursts=0,
                waits=0,
                frames=0,
                sends=0,
                rings=(),
                settings=WorkerSettings(),
            ),
        ),
        interfaces=(
            InterfaceStatus(
                name="eth0",
                receives=True,
                state="up",
                carrier=False,
                ifindex=2,
                mtu=1500,
                admits_all=True,
                tx_index=0,
                device_tx_dropped=8,
                qdisc_tx_dropped=9,
            ),
        ),
        vips=(
            VipStatus(vip=ip_address("192.0.2.10"), announced=True, reason=""),
            VipStatus(vip=ip_address("2001:db8::10"), announced=False, reason="no worker forwards"),
        ),
        peers=(
            PeerStatus(
                name="lb1",
                addresses=(ip_address("203.0.113.10"),),
                here=True,
                live=True,
                reason="",
                since=None,
            ),
            PeerStatus(
                name="lb2",
                addresses=(ip_address("203.0.113.11"), ip_address("2001:db8:f::11")),
                here=False,
                live=False,
                reason="not ready: it starts",
                since=datetime.now(UTC) - timedelta(hours=1),
            ),
        ),
        services=(
            ServiceStatus(
                name="http",
                vip=ip_address("2001:db8::10"),
                protocol="tcp",
                port=None,
                pool="web",
                affinity="5-tuple",
                fingerprint="00112233aabbccdd",
                packets=24690,
                bytes=135780,
                new_flows=7,
                flows=42,
            ),
        ),
        pools=(
            PoolStatus(
                name="web",
                table_size=251,
                backends=(backend("a", 251), backend("b", 0, "no route")),
            ),
        ),
        shared=SharedStatus(
            key="/lbfwd/config",
            revision=12,
            seen=13,
            problems=("/lbfwd/config in etcd: line 1, column 2: not TOML",),
            etcd_problem="",
        ),
        tunnel=TunnelStatus(
            trouble="",
            blocked=(),
            mtu_holes=(),
            packets=120,
            bytes=7200,
            dropped={"stray": 0, "too_big": 0, "unsent": 0},
        ),
        drops={"not_ip": 0, "fragment": 17},
        events={"flow_new": 23, "reset_sent": 0},
    )
