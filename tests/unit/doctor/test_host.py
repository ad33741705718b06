import re
from dataclasses import replace
from pathlib import Path

import pytest
from pyroute2.ethtool.ethtool import EthtoolFeatures

from lbfwd.config.machine import parse_ranges
from lbfwd.doctor import host, machine
from lbfwd.doctor.facts import Host, Offloads, Package
from lbfwd.doctor.finding import Finding

ARCHITECTURE = Path(__file__).parents[3] / "docs/architecture.md"
GOOD = Host("6.18.5", (Package("aiohttp", "3.10", "3.10"),), synchronized=True, clocksource="tsc")
INTERRUPTS = """\
           CPU0       CPU1
  0:         35          0   IO-APIC    2-edge      timer
 30:        100         11   PCI-MSIX-0000:00:03.0   0-edge      eth0-rx-0
NMI:          7          8   Non-maskable interrupts
"""


def said(facts: Host) -> list[Finding]:
    return [finding for finding in host.checks(facts) if finding.level != "ok"]


def test_the_good_host() -> None:
    assert [f.level for f in host.checks(GOOD)] == ["ok"] * 3


def test_kernels_are_those_of_the_document() -> None:
    rows = re.findall(r"^\| (\d+\.\d+)(?: \(about\))? \|", ARCHITECTURE.read_text(), re.M)
    assert {".".join(map(str, version)) for version, _lack in host.KERNELS} == set(rows)


@pytest.mark.parametrize(
    ("kernel", "lacks"),
    [("5.15.0-91-generic", 4), ("5.16", 3), ("6.1.0-27-amd64", 2), ("6.2.0", 1), ("6.17.9", 1),
     ("6.18", 0), ("7.0-rc1", 0)],
)  # fmt: skip
def test_what_a_kernel_lacks(kernel: str, lacks: int) -> None:
    found = said(replace(GOOD, kernel=kernel))
    assert [finding.check for finding in found] == ["kernel"] * lacks


@pytest.mark.parametrize(
    ("installed", "fine"), [("3.9.5", False), ("3.10", True), ("3.10.1", True), ("4", True),
                            ("", False), ("3.9rc1", False)],
)  # fmt: skip
def test_packages(installed: str, fine: bool) -> None:
    found = said(replace(GOOD, packages=(Package("aiohttp", "3.10", installed),)))
    assert [f.fix for f in found] == ["pip install 'aiohttp>=3.10'"] * (not fine)


def test_clock() -> None:
    (finding,) = said(replace(GOOD, synchronized=False))
    assert finding.fix == "timedatectl set-ntp true"
    (finding,) = said(replace(GOOD, clocksource="hpet"))
    assert finding.what == "clock source hpet"
    assert not said(replace(GOOD, synchronized=None, clocksource=""))


def test_versions() -> None:
    assert host.numbers("6.18.5-arch1") == (6, 18, 5)
    assert host.numbers("none") == ()


def test_interrupts_are_counted_over_cpus() -> None:
    assert machine.counted(INTERRUPTS) == {0: (35, "timer"), 30: (111, "eth0-rx-0")}


class OldEthtool:
    """Of a kernel before 5.12, which does not know rx-udp-gro-forwarding."""

    def __enter__(self) -> "OldEthtool":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def get_features(self, _interface: str) -> EthtoolFeatures:
        flags = {"generic-receive-offload": True, "large-receive-offload": False}
        return EthtoolFeatures(features={}, offload_flags=flags)


def test_offloads_of_an_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "Ethtool", OldEthtool)
    assert machine.offloads(["eth0"]) == {"eth0": Offloads(gro=True)}


def test_this_machine() -> None:
    found = machine.host()
    assert Path("/proc/sys/kernel/osrelease").read_text().strip() == found.kernel
    assert {"aiohttp", "pyroute2"} <= {package.name for package in found.packages}
    assert "pytest" not in {package.name for package in found.packages}  # of an extra
    assert not said(replace(found, kernel="6.18", synchronized=True, clocksource="tsc"))
    assert set(machine.offloads(["lo", "nothing0"])) == {"lo"}
    assert machine.irqs("lo") == ()
    assert parse_ranges(machine.text(Path("/sys/devices/system/cpu/online")))
    assert machine.text(Path("/nonexistent")) == ""


def test_sysctls_that_are_not_there_are_left_out() -> None:
    path = "ipv4/ip_forward"
    value = int(Path("/proc/sys/net", path).read_text(encoding="ascii"))
    assert machine.sysctls((path, "core/none_of_this_name")) == {path: value}
