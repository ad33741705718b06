"""What ``lbfwd status`` prints for people."""

import io
from ipaddress import ip_address

import pytest
from rich.console import Console

from lbfwd.cli.status import render
from lbfwd.supervisor.status import (
    NOTHING_ANNOUNCED,
    BlockedStatus,
    HoleStatus,
    ProbeStatus,
    Status,
    VipStatus,
)
from tests.unit.api.values import HOP, status


def printed(shown: Status | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    for part in render(shown or status()):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def row(first: str) -> list[str]:
    """The cells of the line whose first cell is this."""
    (line,) = (
        text
        for text in printed()
        if text.split("  ")[0].strip() == first or (text.split() and text.split()[0] == first)
    )
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_head_names_node_generation_and_uptime() -> None:
    head = printed()[0]
    assert head == (
        "lbfwd 9.9 on lb1: generation 42, up 1 d 02:03:04, pid 77, /etc/lbfwd/lbfwd.toml"
    )


def test_a_worker_shows_the_sum_of_its_rings() -> None:
    assert row("0") == ["0", "2", "v2", "4711", "running", "3", "50 ms", "1000", "100", "95",
                        "1005", "5", "1"]  # fmt: skip
    assert row("1")[:6] == ["1", "3", "v3", "-", "abandoned", "5"]


def test_an_interface_shows_its_state_and_drops() -> None:
    assert row("eth0") == ["eth0", "in/out", "no carrier", "1500", "all packets", "8", "9"]


def test_vips_show_why_they_are_not_announced() -> None:
    assert row("192.0.2.10") == ["192.0.2.10", "yes", "-"]
    assert row("2001:db8::10") == ["2001:db8::10", "no", "no worker forwards"]


def test_a_node_that_announces_nothing_shows_no_vips() -> None:
    silent = [VipStatus(vip=ip_address("192.0.2.10"), announced=False, reason=NOTHING_ANNOUNCED)]
    assert "192.0.2.10" not in "\n".join(printed(status().model_copy(update={"vips": silent})))


def test_the_fleets_nodes_show_who_is_given_fragments() -> None:
    assert row("lb1") == ["lb1", "203.0.113.10", "this node", "live", "-"]
    assert row("lb2")[1] == "203.0.113.11, 2001:db8:f::11"
    assert row("lb2")[3:] == ["not live", "not ready: it starts"]
    alone = "\n".join(printed(status().model_copy(update={"peers": ()})))
    assert "fragments" not in alone


def test_a_service_without_port_serves_any() -> None:
    assert row("http") == [
        "http", "2001:db8::10", "tcp", "any", "web", "24690", "135780", "7", "42",
        "00112233aabbccdd",
    ]  # fmt: skip


def test_backends_show_share_state_and_next_hop() -> None:
    assert row("a")[2:] == ["0.8 of 4", "100.0%", "up for 01:00:30", "1.2 ms", "10.0.0.1 on eth1",
                            "12345", "67890", "6", "21"]  # fmt: skip
    state = "down for 01:00:30; tcp 10.0.0.1:80: connection refused; no route"
    assert row("b")[2:7] == ["4", "0.0%", state, "-", "-"]


@pytest.mark.parametrize("outcome", ["late", "not_sent", "timeout"])
def test_a_probe_that_did_not_pass_shows_its_outcome(outcome: str) -> None:
    shown = status()
    (pool,) = shown.pools
    probed = pool.backends[0].model_copy(
        update={"probe": ProbeStatus(outcome=outcome, duration_ms=7.5)}
    )
    pool = pool.model_copy(update={"backends": (probed,)})
    lines = printed(shown.model_copy(update={"pools": (pool,)}))
    (line,) = [line for line in lines if "up for 01:00:30" in line]
    assert f"  {outcome}, 7.5 ms  " in line


def test_the_tunnel_is_shown_when_it_has_something_to_say() -> None:
    assert not any("through the tunnel" in line for line in printed())
    tunnel = status().tunnel
    assert tunnel is not None
    address = HOP.gateway
    troubled = tunnel.model_copy(
        update={
            "trouble": "lbfwd-probe is gone",
            "blocked": (
                BlockedStatus(vip=address, interface="eth0", reason="strict", fix="sysctl"),
            ),
            "mtu_holes": (HoleStatus(backend=address, reason="lost", fix="ip route"),),
            "dropped": {"stray": 0, "unsent": 3},
        }
    )
    lines = printed(status().model_copy(update={"tunnel": troubled}))
    shown = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    for row in (
        ["broken", "lbfwd-probe is gone", "lbfwd doctor node"],
        ["answers blocked", "strict", "sysctl"],
        ["mtu hole", "lost", "ip route"],
        ["dropped: unsent", "3 packets", "-"],
    ):
        assert row in shown
    assert not any("stray" in line for line in lines)


def test_only_reasons_that_happened_are_printed() -> None:
    assert row("fragment") == ["fragment", "17"]
    assert not any("not_ip" in line for line in printed())


def test_only_events_that_happened_are_printed() -> None:
    assert row("flow_new") == ["flow_new", "23"]
    assert not any("reset_sent" in line for line in printed())


def test_what_etcd_told_last_and_why_it_is_not_in_force() -> None:
    lines = [line.rstrip() for line in printed()]
    first = lines.index("shared configuration: revision 12 of /lbfwd/config in etcd is in force")
    assert lines[first + 1 : first + 3] == [
        "  revision 13, the latest, is not",
        "  /lbfwd/config in etcd: line 1, column 2: not TOML",
    ]
