"""What ``lbfwd doctor`` says of the ways of probes, and that its fixes are right: run, they help.

client ── router ── node, and three backends behind the router       (lbfwd/demo/topology.py)
"""

from collections.abc import Iterator

import pytest

from lbfwd.demo.lab import Lab, eventually
from lbfwd.demo.topology import PLACES, VIPS
from tests.topology.doctor.test_doctor import Doctor, Said, fix, node_arguments
from tests.topology.health.tunnel_site import chain, rules
from tests.topology.node.site import CONFIG, Site

pytestmark = [pytest.mark.topology, pytest.mark.slow]

NARROW, OVERHEAD = 1400, 24
LONG_S = 60  # learned path MTUs are waited for, and several sizes are tried
HEALTH = """
[pool.health]
type = "tcp"
port = 80
interval_ms = 400
timeout_ms = 400
mtu_check_s = 1
"""
SILENT = chain(
    "output", "icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Lab() as lab:
        config = CONFIG.replace("[[service]]", HEALTH + "[[service]]", 1)
        found = Site(lab, tmp_path_factory.mktemp("ways"), config)
        found.node.file.chmod(0o600)
        yield found


def said(site: Site) -> Said:
    return Doctor(site.network.node, *node_arguments(site)).said()


def fixes(looking: Said, check: str, level: str) -> list[str]:
    found = looking.findings["node"]
    return [f["fix"] for f in found if (f["check"], f["level"]) == (check, level)]


def well(site: Site) -> None:
    site.node.until(
        lambda s: all(b["condition"] == "up" for p in s["pools"] for b in p["backends"]), "all up"
    )


@pytest.mark.parametrize("way", ["by another interface", "none"])
def test_an_rp_filter_that_drops_the_vips_answers(site: Site, way: str) -> None:
    host, vip = site.network.node, VIPS[4]
    well(site)
    host.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "rehto")
    host.run("ip", "link", "set", "other", "up")
    route = ["dev", "other"] if way == "by another interface" else ["table", "main"]
    kind = [] if way == "by another interface" else ["blackhole"]
    try:
        host.sysctl(ipv4__conf__all__rp_filter=1, ipv4__conf__eth0__rp_filter=0)
        host.run("ip", "route", "add", *kind, f"{vip}/32", *route)
        site.node.until(
            lambda s: any(b["condition"] != "up" for p in s["pools"] for b in p["backends"]),
            "checks fail",
        )
        looking = said(site)
        assert "rp_filter" in looking.broken("node"), looking
        assert f"VIP {vip}" in looking.broken("node")["rp_filter"]
        (command,) = fixes(looking, "rp_filter", "broken")
        assert fix(host, command).returncode == 0
        well(site)
        again = said(site)
        assert (again.code, again.broken("node")) == (0, {}), again
    finally:
        host.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__eth0__rp_filter=0)
        host.run("ip", "route", "del", *kind, f"{vip}/32", *route, check=False)
        host.run("ip", "link", "del", "other")


def test_a_hole_in_the_tunnels_mtu(site: Site) -> None:
    host, router, place = site.network.node, site.network.router, PLACES[0]
    well(site)
    router.run("ip", "link", "set", f"to-{place.name}", "mtu", str(NARROW))
    try:
        with rules(router, SILENT):
            holes = "tunnel_mtu_hole"
            eventually(lambda: bool(site.node.events(holes)), LONG_S, "the hole is found")
            looking = said(site)
            (command,) = fixes(looking, "tunnel", "warn")
            assert looking.code == 0, "a warning: small packets pass"
            (what,) = [f["what"] for f in looking.findings["node"] if f["level"] == "warn"
                       and f["check"] == "tunnel"]  # fmt: skip
            assert f"{NARROW - OVERHEAD} bytes pass" in what
            done = fix(host, command)
            assert done.returncode == 0, done.stderr
            eventually(lambda: bool(site.node.events("tunnel_mtu_good")), LONG_S, "it is gone")
            assert not fixes(said(site), "tunnel", "warn")
    finally:
        router.run("ip", "link", "set", f"to-{place.name}", "mtu", "1500")
        host.run("ip", "route", "del", f"{place.address}/32", check=False)
