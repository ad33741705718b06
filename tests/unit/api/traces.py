"""A trace for tests."""

from ipaddress import ip_address
from typing import Any

from lbfwd.supervisor.trace import Trace, TraceEntry, TraceHeader, TraceService, TraceTable
from tests.unit.api.values import HOP, backend

OUTER = TraceHeader(
    interface="eth1",
    src_mac="02:00:00:00:00:02",
    dst_mac="02:00:00:00:00:01",
    source=ip_address("10.0.0.254"),
    destination=ip_address("10.0.0.1"),
    ttl=64,
    tos=0,
    dont_fragment=True,
    length=64,
    gre_protocol="0x0800",
    hex="02" * 38,
)


def trace(**changes: Any) -> Trace:
    facts: dict[str, Any] = {
        "node": "lb1",
        "generation": 42,
        "protocol": "tcp",
        "source": ip_address("198.51.100.7"),
        "source_port": 40000,
        "destination": ip_address("192.0.2.10"),
        "destination_port": 80,
        "worker": 1,
        "outcome": "forwarded",
        "reason": "",
        "because": "the flow table of worker 0 has it",
        "chosen_by": "flow_table",
        "service": TraceService(
            name="http", affinity="5-tuple", pool="web", fingerprint="00112233aabbccdd"
        ),
        "table": TraceTable(key="c6", hash="00000000000000ff", size=251, bucket=7, backend="b"),
        "entries": (
            TraceEntry(
                worker=0, pool="web", backend="a", state="tcp", age_s=3, bucket=2, usable=True
            ),
        ),
        "pool": "web",
        "backend": backend("a", 251),
        "hop": HOP,
        "outer": OUTER,
    }
    return Trace(**facts | changes)
