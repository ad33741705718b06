"""Nodes on a VLAN, on bonds, on a VLAN on a bond, and over several next hops.

The topology is drawn in uplink_site.py. Traffic goes from the client over the router and the uplink
to the node, in GRE over the uplink and the router to a backend, and from there to the client.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lbfwd.demo.lab import Lab, eventually
from tests.vm.inside.uplink_site import (
    BACKENDS,
    FLOWS,
    KIT,
    NODE,
    UPLINKS,
    WAIT_S,
    WIRES,
    Uplinks,
    link,
    traffic,
    upload,
)

pytestmark = pytest.mark.topology

UPLOAD_BYTES = 1_000_000
# A bond looks at its members every 20 ms; what was sent a little earlier may still be on the wire.
ON_THE_WIRE_S = 0.3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uplinks]:
    with Lab() as lab:
        made = Uplinks(lab, tmp_path_factory.mktemp("uplinks"))
        try:
            yield made
        finally:
            for server in made.servers:
                server.close()
            print(made.node.log_file.read_text())  # noqa: T201 - pytest shows it on failure


def drops(site: Uplinks) -> dict[str, int]:
    return {reason: count for reason, count in site.node.status()["drops"].items() if count}


def test_lacp_makes_one_of_two_wires(site: Uplinks) -> None:
    for wire in (5, 6):
        wait_for_member(site, "ad0", wire, "up")
    for mine, its in ((site.host, site.router), (site.router, site.host)):
        info = link(mine, "ad0")["linkinfo"]["info_data"]
        assert info["mode"] == "802.3ad"
        assert info["ad_info"]["num_ports"] == 2
        assert info["ad_info"]["partner_mac"] == link(its, "ad0")["address"]


@pytest.mark.parametrize("name", UPLINKS)
def test_traffic_and_what_the_status_says(site: Uplinks, name: str) -> None:
    site.take(name)
    site.wait_for_hops(name)
    before = drops(site)
    # A bond drops what its kernel sends before LACP is through.
    earlier = link(site.host, name)["stats64"]["tx"]["dropped"]
    with traffic(site) as sent:
        sent.send(4 * FLOWS)
        assert sent.lost() == []
    assert drops(site) == before
    mine, its = link(site.host, name), link(site.router, name)
    shown = {i["name"]: i for i in site.node.status()["interfaces"]}[name]
    expected = {"receives": True, "state": "up", "carrier": True, "admits_all": False,
                "ifindex": mine["ifindex"], "mtu": mine["mtu"], "device_tx_dropped": earlier,
                "qdisc_tx_dropped": 0}  # fmt: skip
    assert {key: shown[key] for key in expected} == expected
    for backend, (hop,) in site.hops().items():
        family = 6 if ":" in BACKENDS[backend] else 4
        assert hop["mac"] == its["address"]
        assert hop["mtu"] == mine["mtu"]
        assert hop["gateway"] == UPLINKS[name].router(family)
        assert hop["source"] == NODE[family]


@pytest.mark.parametrize("name", ["xor0", "x200", "ad0"])
def test_super_frames_of_an_upload(site: Uplinks, name: str) -> None:
    site.take(name)
    site.wait_for_hops(name)
    data = os.urandom(UPLOAD_BYTES)
    for family in NODE:
        assert upload(site.client, family, data) == data


@pytest.mark.parametrize(("name", "bond", "wire"),
                         [("ab0", "ab0", 1), ("xor0", "xor0", 3), ("x200", "xor0", 4),
                          ("ad0", "ad0", 5)])  # fmt: skip
def test_a_member_that_goes_down_loses_what_was_on_its_wire(
    site: Uplinks, name: str, bond: str, wire: int
) -> None:
    site.take(name)
    site.wait_for_hops(name)
    before = drops(site)
    windows = []
    with traffic(site) as sent:
        sent.start()
        try:
            eventually(lambda: len(sent.sent) > FLOWS, WAIT_S, "traffic")
            for state in ("down", "up"):
                began = time.monotonic()
                site.router.run("ip", "link", "set", f"r{wire}", state)
                wait_for_member(site, bond, wire, state)
                windows.append((began - ON_THE_WIRE_S, time.monotonic() + ON_THE_WIRE_S))
                count = len(sent.sent)
                eventually(lambda n=count: len(sent.sent) > n + 4 * FLOWS, WAIT_S, "more traffic")
        finally:
            sent.stop()
        lost = sent.lost()
    assert [at for at in lost if not any(a <= at <= b for a, b in windows)] == []
    assert drops(site) == before
    shown = {i["name"]: i for i in site.node.status()["interfaces"]}[name]
    assert (shown["state"], shown["carrier"]) == ("up", True)


def wait_for_member(site: Uplinks, bond: str, wire: int, state: str) -> None:
    """Wait until every bond at this wire has noticed."""

    def noticed() -> bool:
        ends = [(site.host, f"e{wire}")]
        if bond != "ab0":
            ends.append((site.router, f"r{wire}"))
        members = [link(host, name)["linkinfo"]["info_slave_data"] for host, name in ends]
        return all(
            member["mii_status"].lower() == state and (state == "down" or is_in_use(member))
            for member in members
        )

    eventually(noticed, WAIT_S, f"{bond} knows that wire {wire} is {state}")


def is_in_use(member: dict[str, Any]) -> bool:
    """Whether both ends of a wire take frames in and give it some; without LACP, who is up does."""
    states = [member[key] for key in member if key.endswith("_oper_port_state_str")]
    return all({"collecting", "distributing"} <= set(state) for state in states)


def test_next_hops_over_a_vlan_and_over_a_vlan_on_a_bond(site: Uplinks) -> None:
    site.take("v100", "x200")
    site.wait_for_hops("v100", "x200")
    ways = [UPLINKS[name] for name in ("v100", "x200")]
    before = [link(site.router, way.device)["stats64"]["rx"]["packets"] for way in ways]
    with traffic(site) as sent:
        sent.send(8 * FLOWS)
        assert sent.lost() == []
        after = [link(site.router, way.device)["stats64"]["rx"]["packets"] for way in ways]
        assert all(b - a >= FLOWS for a, b in zip(before, after, strict=True)), "both carry load"

        # The way in is the other one's, so that only the next hop over x200 is lost.
        for number in (3, 4):
            site.router.run("ip", "link", "set", f"r{number}", "down")
        try:
            site.wait_for_hops("v100")
            sent.send(4 * FLOWS)
            assert sent.lost() == []
        finally:
            for number in (3, 4):
                site.router.run("ip", "link", "set", f"r{number}", "up")
        eventually(lambda: "NO-CARRIER" not in link(site.host, "x200")["flags"], WAIT_S, "carrier")


def test_an_mtu_that_changes_is_followed(site: Uplinks) -> None:
    site.take("x200")
    for mtu in (1400, 1500):
        site.host.run("ip", "link", "set", "x200", "mtu", str(mtu))
        eventually(
            lambda m=mtu: all(hop["mtu"] == m for hops in site.hops().values() for hop in hops),
            WAIT_S, f"MTU {mtu}",
        )  # fmt: skip


def test_the_doctor_finds_nothing_broken(site: Uplinks) -> None:
    site.take("x200")
    site.wait_for_hops("x200")
    argv = [sys.executable, "-m", "lbfwd.cli.main", "doctor", "--json",
            "--runtime-dir", str(site.node.runtime)]  # fmt: skip
    found = json.loads(site.host.run(*argv, check=False))["node"]
    assert [finding for finding in found if finding["level"] == "broken"] == []
    assert {"guard", "mtu", "next hops"} <= {f["check"] for f in found}
    # It looks at the cards, not at the bonds and VLANs above them.
    for check in ("offloads", "queues", "interrupts", "hardware drops"):
        seen = {f["what"].partition(":")[0] for f in found if f["check"] == check}
        assert seen == {f"e{number}" for number in range(WIRES)}


def test_the_kit_takes_its_devices_and_vips_away(site: Uplinks) -> None:
    for host in site.backends.values():
        host.run("env", f"GRE_ENV={KIT / 'gre.env'}", str(KIT / "gre.sh"), "down")
        assert "lbfwd" not in host.run("ip", "-br", "link")
        assert host.run("ip", "-br", "address", "show", "lo").split()[2:] == [
            "127.0.0.1/8", "::1/128",
        ]  # fmt: skip
