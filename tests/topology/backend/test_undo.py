"""Whatever ends a backend, and however far it came, the machine is as it was."""

import signal

import pytest

from tests.topology.backend.site import (
    BACKEND_OPTIONS,
    NODE4,
    VIP4,
    VIP6,
    snapshot,
    until,
)

pytestmark = pytest.mark.topology


@pytest.fixture
def as_before(site):
    """Compare all that a backend may change before and after the test."""
    before = snapshot(site.backend)
    yield before
    until(lambda: snapshot(site.backend) == before, "everything is as it was")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_undoes_everything(site, command, as_before, number):
    running = command().ready()
    assert snapshot(site.backend) != as_before
    assert running.end(number) == 0
    assert snapshot(site.backend) == as_before
    assert "backend_stopped" in running.lines[-1]


def test_sysctls_get_back_the_values_that_they_had(site, command):
    """Values that are neither the defaults nor what a backend sets."""
    odd = {"all": 2, "default": 1, "eth0": 1}
    site.backend.sysctl(**{f"ipv4__conf__{name}__rp_filter": v for name, v in odd.items()})
    site.backend.sysctl(ipv4__conf__all__arp_ignore=2, ipv4__conf__all__arp_announce=1)
    try:
        before = snapshot(site.backend)
        running = command()
        (device, *_) = running.wait_for("backend_ready")["devices"]
        values = site.backend.run("sysctl", "-a", "-r", r"^net\.ipv4\.conf\..*\.(rp_|arp_[ai])")
        for line in (
            "all.rp_filter = 0",
            "default.rp_filter = 2",
            "eth0.rp_filter = 2",
            f"{device}.rp_filter = 0",
            "all.arp_ignore = 2",
            "all.arp_announce = 2",
        ):
            assert f"net.ipv4.conf.{line}\n" in values
        assert running.end() == 0
        assert snapshot(site.backend) == before
    finally:
        site.backend.sysctl(ipv4__conf__all__rp_filter=1)
        site.backend.sysctl(ipv4__conf__default__rp_filter=0, ipv4__conf__eth0__rp_filter=0)
        site.backend.sysctl(ipv4__conf__all__arp_ignore=0, ipv4__conf__all__arp_announce=0)


def test_a_vip_that_was_there_before_stays(site, command):
    site.backend.run("ip", "address", "add", f"{VIP4}/32", "dev", "lo")
    try:
        before = snapshot(site.backend)
        assert command().ready().end() == 0
        assert snapshot(site.backend) == before
    finally:
        site.backend.run("ip", "address", "del", f"{VIP4}/32", "dev", "lo")


@pytest.mark.usefixtures("user_space")
def test_a_start_that_fails_half_way_leaves_nothing(site, command):
    """The filter stands and the raw sockets are open when TUN's name turns out to be taken."""
    site.backend.run("ip", "tuntap", "add", "dev", "lbfwd-tun", "mode", "tun")
    try:
        before = snapshot(site.backend)
        (line,) = command().refusal()
        assert "TUN device lbfwd-tun" in line
        assert "a device of this name is there already" in line
        assert snapshot(site.backend) == before
    finally:
        site.backend.run("ip", "tuntap", "del", "dev", "lbfwd-tun", "mode", "tun")


@pytest.mark.usefixtures("kernel_gre")
def test_a_second_external_gre_device_is_refused(site, command):
    """The IPv4 device is made already when the kernel refuses the IPv6 one."""
    site.backend.run("ip", "link", "add", "other", "type", "ip6gre", "external")
    try:
        before = snapshot(site.backend)
        (line,) = command().refusal()
        assert "another external ip6gre device is in this network namespace" in line
        assert snapshot(site.backend) == before
    finally:
        site.backend.run("ip", "link", "del", "other")


FAULT = """
import importlib, sys
from lbfwd.backend.request import BackendError
from lbfwd.cli.main import main
module, owner, name, times = {step!r}
place = importlib.import_module("lbfwd.backend." + module)
place = getattr(place, owner) if owner else place
real = getattr(place, name)
def failing(*arguments):
    global times
    real(*arguments)
    times -= 1
    if times == 0:
        raise BackendError("injected fault")
setattr(place, name, failing)
sys.exit(main())
"""
STEPS = [
    ("filter", "Filter", "sync", 1),
    ("decap", "Decapsulator", "open", 1),
    ("run", "", "_set_sysctls", 1),
    ("decap", "Decapsulator", "bring_up", 1),
    ("kernel", "Kernel", "put_route", 2),
    ("kernel", "Kernel", "add_rule", 1),
    ("kernel", "Kernel", "add_vip", 1),
    ("kernel", "Kernel", "add_vip", 2),
    ("decap", "Decapsulator", "start", 1),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: "-".join(map(str, step)))
def test_a_start_that_fails_after_any_step_leaves_nothing(site, command, as_before, step):
    running = command(program=("-c", FAULT.format(step=step)))
    assert running.refusal() == ["lbfwd backend: injected fault"]
    assert snapshot(site.backend) == as_before


def test_a_routing_table_in_use_is_left_alone(site, command, as_before):
    rule = ("from", VIP6, "lookup", "7600", "pref", "32765")
    site.backend.run("ip", "-6", "rule", "add", *rule)
    site.backend.run("ip", "route", "add", "unreachable", "203.0.113.7", "table", "7601")
    try:
        before = snapshot(site.backend)
        running = command()
        assert running.wait_for("backend_ready")["table"] == 7602
        assert running.end() == 0
        assert snapshot(site.backend) == before
    finally:
        site.backend.run("ip", "-6", "rule", "del", *rule)
        site.backend.run("ip", "route", "del", "unreachable", "203.0.113.7", "table", "7601")


def test_what_a_killed_backend_left_goes_with_the_next_one(site, command):
    """All but the sysctls: what they were died with the process."""
    before = snapshot(site.backend, sysctls=False)
    command().ready().end(signal.SIGKILL)
    assert snapshot(site.backend, sysctls=False) != before
    running = command("--vip", VIP4, "--node", NODE4).ready()
    assert VIP6 not in site.backend.run("ip", "address")
    assert any("leftover_removed" in line for line in running.lines)
    assert running.end() == 0
    assert snapshot(site.backend, sysctls=False) == before
    site.backend.sysctl(ipv4__conf__all__arp_ignore=0, ipv4__conf__all__arp_announce=0)
    site.backend.sysctl(ipv4__conf__all__rp_filter=1)
    site.backend.sysctl(
        **{f"ipv4__conf__{name}__rp_filter": 0 for name in ("default", "eth0", "lo")}
    )


@pytest.mark.parametrize(
    ("vandalism", "event"),
    [
        (("nft", "flush", "ruleset"), "filter_restored"),
        (("nft", "delete", "rule", "inet", "lbfwd_backend", "input", "handle"), "filter_restored"),
        (("ip", "address", "del", f"{VIP4}/32", "dev", "lo"), "vip_restored"),
        (("ip", "-6", "address", "del", f"{VIP6}/128", "dev", "lo"), "vip_restored"),
    ],
)
def test_what_others_undo_is_done_again(site, command, as_before, vandalism, event):
    running = command().ready()
    during = snapshot(site.backend)
    if vandalism[-1] == "handle":
        listing = site.backend.run("nft", "-a", "list", "table", "inet", "lbfwd_backend")
        line = next(line for line in listing.splitlines() if "from a stranger" in line)
        vandalism += (line.rsplit(" ", 1)[1],)
    site.backend.run(*vandalism)
    running.wait_for(event)
    until(lambda: snapshot(site.backend) == during, "everything is in place again")
    assert running.end() == 0


def test_a_tunnel_device_that_is_down_comes_up_again(site, command, as_before):
    running = command()
    (device, *_) = running.wait_for("backend_ready")["devices"]
    site.backend.run("ip", "link", "set", device, "down")
    running.wait_for("tunnel_device_restored")
    until(lambda: "UP" in site.backend.run("ip", "link", "show", device), "it is up")
    assert running.end() == 0


def test_without_its_tunnel_device_it_ends_and_says_so(site, command, as_before):
    running = command()
    (device, *_) = running.wait_for("backend_ready")["devices"]
    site.backend.run("ip", "link", "del", device)
    (line,) = running.refusal()
    assert f"tunnel device {device} is gone" in line


def test_rules_and_routes_are_kept_in_step(site, command, as_before):
    running = command().ready()
    during = snapshot(site.backend)
    site.backend.run("ip", "rule", "del", "from", VIP4)
    site.backend.run("ip", "-6", "route", "flush", "table", "7600")
    until(lambda: snapshot(site.backend) == during, "rule and routes are there again")

    site.backend.run("ip", "route", "add", "203.0.113.0/24", "via", "10.0.3.9")
    site.backend.run("ip", "route", "add", "blackhole", "203.0.113.64/26")
    table = ("ip", "route", "show", "table", "7600")
    route = "203.0.113.0/24 via 10.0.3.9 dev eth0 proto 76 advmss 1416"
    until(lambda: route in site.backend.run(*table), "the new route is copied")
    until(lambda: "blackhole 203.0.113.64/26" in site.backend.run(*table), "and the hole")
    site.backend.run("ip", "route", "change", "203.0.113.0/24", "via", "10.0.3.8")
    changed = route.replace("10.0.3.9", "10.0.3.8")
    until(lambda: changed in site.backend.run(*table), "and its change")
    site.backend.run("ip", "route", "del", "203.0.113.0/24")
    site.backend.run("ip", "route", "del", "blackhole", "203.0.113.64/26")
    until(lambda: snapshot(site.backend) == during, "and its end")
    assert running.end() == 0


def test_a_second_backend_is_refused_and_the_first_goes_on(site, command):
    running = command().ready()
    during = snapshot(site.backend)
    (line,) = command(*BACKEND_OPTIONS).refusal()
    assert f"another lbfwd backend (process {running.process.pid})" in line
    assert snapshot(site.backend) == during
    assert running.process.poll() is None
