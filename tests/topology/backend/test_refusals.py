"""Bad input and missing means: told, and nothing touched."""

import pytest

from tests.topology.backend.site import BACKEND4, NODE4, NODE6, VIP4, VIP6, snapshot, until

pytestmark = pytest.mark.topology


@pytest.fixture(autouse=True)
def _untouched(site):
    before = snapshot(site.backend)
    yield
    until(lambda: snapshot(site.backend) == before, "nothing was touched")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--vip", BACKEND4, "--node", NODE4), f"--vip {BACKEND4}: is already an address of eth0"),
        (("--vip", VIP4, "--node", BACKEND4), f"--node {BACKEND4}: is an address of this machine"),
        (("--vip", VIP4, "--node", "10.0.3.300"), "--node 10.0.3.300: must be an IPv4 or IPv6"),
        (("--vip", VIP6, "--node", NODE6, "--mtu", "1300"), "tunnel MTU 1256: IPv6 VIPs need 1280"),
    ],
)
def test_bad_input_names_the_value_and_the_rule(command, options, reason):
    (line,) = command(*options).refusal()
    assert reason in line


def test_a_node_without_a_route_is_named(site, command):
    site.backend.run("ip", "route", "add", "unreachable", "203.0.113.7")
    try:
        (line,) = command("--vip", VIP4, "--node", "203.0.113.7").refusal()
        assert "--node 203.0.113.7: no route to this node: No route to host" in line
    finally:
        site.backend.run("ip", "route", "del", "unreachable", "203.0.113.7")


@pytest.mark.parametrize("capability", ["net_admin", "net_raw"])
def test_a_missing_capability_is_named(command, capability):
    drop = ("setpriv", "--bounding-set", f"-{capability}")
    (line,) = command(prefix=drop).refusal()
    assert f"CAP_{capability.upper()} missing" in line


@pytest.mark.usefixtures("user_space")
def test_a_missing_tun_device_is_named(command):
    hide = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
    (line,) = command(prefix=hide).refusal()
    assert "/dev/net/tun: No such file or directory" in line


def test_a_read_only_sysctl_is_named(command):
    mounts = "mount -o bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
    prefix = ("unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh")
    (line,) = command(prefix=prefix).refusal()
    assert "sysctl net/" in line
    assert "Read-only file system" in line
