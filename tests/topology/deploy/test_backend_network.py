"""The backend kit's files for systemd-networkd and netplan, read by those of a clean Debian.

This kernel may have no GRE device; then networkd says so of the device, and does the rest.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Lab, eventually
from tests.topology.deploy import debian
from tests.topology.deploy.debian import Machine

pytestmark = [pytest.mark.topology, pytest.mark.slow]

KIT = Path(__file__).parents[3] / "deploy/backend"
COMPLAINTS = ("Unknown", "unknown", "Invalid", "Failed to parse", "ignoring", "missing")
WAIT_S = 20.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    debian.tools()
    root = debian.unpack(tmp_path_factory.mktemp("debian"))
    with Lab() as lab, debian.booted(lab.host("backend"), root) as booted:
        yield booted
    shutil.rmtree(root)


def complaints(journal: str) -> list[str]:
    return [line for line in journal.splitlines() if any(word in line for word in COMPLAINTS)]


def test_networkd_sets_the_vips_up_and_understands_every_line(machine: Machine) -> None:
    folder = machine.root / "etc/systemd/network"
    for path in (KIT / "networkd").iterdir():
        shutil.copy(path, folder)
    machine.run("systemctl", "start", "systemd-networkd")
    eventually(lambda: "2001:db8::10/128" in lo(machine), WAIT_S, "VIPs on lo")
    assert "192.0.2.10/32" in lo(machine)
    assert "deprecated" in machine.run("ip", "-6", "address", "show", "dev", "lo")
    journal = machine.journal("systemd-networkd")
    assert complaints(journal) == []
    for device in ("lbfwd-gre4", "lbfwd-gre6"):
        made = machine.attempt("ip", "link", "show", device).returncode == 0
        assert made or f"{device}: netdev could not be created: Operation not supported" in journal
    machine.run("systemctl", "stop", "systemd-networkd", "systemd-networkd.socket")
    for path in folder.iterdir():
        path.unlink()


def lo(machine: Machine) -> str:
    return machine.run("ip", "-br", "address", "show", "lo")


def test_netplan_makes_devices_of_it(machine: Machine) -> None:
    path = machine.root / "etc/netplan/60-lbfwd-backend.yaml"
    shutil.copy(KIT / "netplan.yaml", path)
    path.chmod(0o600)
    done = machine.attempt("netplan", "generate")
    assert (done.returncode, done.stderr) == (0, "")
    read = machine.run("sh", "-c", "cat /run/systemd/network/10-netplan-lbfwd-gre-lb1.netdev")
    for line in ("Name=lbfwd-gre-lb1", "Kind=gre", "MTUBytes=1476", "Local=10.0.0.11",
                 "Remote=203.0.113.10"):  # fmt: skip
        assert line in read.splitlines()
    six = machine.run("sh", "-c", "cat /run/systemd/network/10-netplan-lbfwd-gre6-lb1.netdev")
    assert "Kind=ip6gre" in six.splitlines()
    vips = machine.run("sh", "-c", "cat /run/systemd/network/10-netplan-lo.network")
    assert "Address=192.0.2.10/32" in vips.splitlines()
    assert "PreferredLifetime=0" in vips.splitlines()


def test_the_sysctls_are_taken(machine: Machine) -> None:
    shutil.copy(KIT / "sysctl.conf", machine.root / "etc/sysctl.d/60-lbfwd-backend.conf")
    done = machine.attempt("/usr/lib/systemd/systemd-sysctl", "60-lbfwd-backend.conf")
    assert (done.returncode, done.stderr) == (0, "")
    names = ("arp_ignore", "arp_announce", "rp_filter")
    values = [machine.run("sysctl", "-n", f"net.ipv4.conf.all.{name}").strip() for name in names]
    assert values == ["1", "2", "0"]
