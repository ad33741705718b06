r"""``lbfwd check`` as an operator types it, on a machine with real interfaces.

node: eth0 10.77.0.1/24 ---- peer
      mq0 (three receive queues)
      tun0 (no Ethernet)
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbfwd.demo.lab import Host, Lab
from tests.unit.config.samples import KEY

pytestmark = pytest.mark.topology

CPUS = sorted(os.sched_getaffinity(0))
LAST = CPUS[-1]  # not 0, if there is another

CONFIG = """
hash_key_file = "key"
[node]
interfaces = [{interfaces}]
[workers]
cpus = [{cpus}]
fanout = "{fanout}"
[[pool]]
name = "web"
backends = [{{ address = "10.0.0.11" }}, {{ address = "10.0.0.12", weight = {weight} }}]
[[service]]
vip = "{vip}"
protocol = "tcp"
pool = "web"
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Host]:
    with Lab() as lab:
        node, peer = lab.host("node"), lab.host("peer")
        lab.link(node, "eth0", ["10.77.0.1/24", "fd77::1/64"], peer, "eth0", ["10.77.0.2/24"])
        queues = "numrxqueues 3 numtxqueues 3 type veth peer name mq0 netns"
        node.run("ip", "link", "add", "mq0", *queues.split(), peer.netns)
        node.run("ip", "tuntap", "add", "tun0", "mode", "tun")
        yield node


def check(node: Host, path: Path, **values: object) -> dict[str, Any]:
    key = path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    file = path / "lb.toml"
    file.write_text(
        CONFIG.format(
            **{
                "interfaces": '"eth0"',
                "weight": 1,
                "vip": "192.0.2.1",
                "cpus": LAST,
                "fanout": "hash",
            }
            | values
        )
    )
    command = (sys.executable, "-m", "lbfwd.cli.main", "check", "--json", str(file))
    verdict: dict[str, Any] = json.loads(node.run(*command, check=False))
    return verdict


def test_good(node: Host, tmp_path: Path) -> None:
    verdict = check(node, tmp_path)
    assert verdict["ok"]
    assert verdict["errors"] == verdict["warnings"] == []


def test_interfaces_of_this_namespace(node: Host, tmp_path: Path) -> None:
    verdict = check(node, tmp_path, interfaces='"eth0", "eth1", "tun0"')
    assert not verdict["ok"]
    assert [(p["value"], p["rule"]) for p in verdict["errors"]] == [
        ('"eth1"', "no such interface; there are: eth0, lo, mq0, tun0"),
        ('"tun0"', "not an Ethernet interface (no link layer)"),
    ]


@pytest.mark.parametrize(
    ("vip", "rule"),
    [
        ("10.77.0.1", "also an address of this machine (eth0)"),
        ("10.77.0.99", "inside the connected prefix 10.77.0.0/24 of eth0"),
        ("fd77::99", "inside the connected prefix fd77::/64 of eth0"),
    ],
)
def test_vips_near_this_machine(node: Host, tmp_path: Path, vip: str, rule: str) -> None:
    verdict = check(node, tmp_path, vip=vip)
    assert verdict["ok"]
    (warning,) = verdict["warnings"]
    assert warning["value"] == f'"{vip}"'
    assert warning["rule"].startswith(rule)


def test_weights_that_the_real_table_cannot_express(node: Host, tmp_path: Path) -> None:
    verdict = check(node, tmp_path, weight=40000)
    assert verdict["ok"]
    (warning,) = verdict["warnings"]
    assert warning["key"] == 'pool "web".table_size'
    # 1 / 40001 of 65537 slots is 1.64 of them
    assert "worst: 10.0.0.11 has 1 slots instead of 1.6" in warning["rule"]


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_receive_queues_that_do_not_fit_the_workers(node: Host, tmp_path: Path) -> None:
    cpus = ", ".join(map(str, CPUS[-2:]))
    verdict = check(node, tmp_path, interfaces='"mq0"', cpus=cpus, fanout="queue")
    assert verdict["ok"]
    rules = [w["rule"] for w in verdict["warnings"] if w["key"] == "workers.fanout"]
    assert len(rules) == 1
    assert rules[0].startswith("mq0 has 3 receive queues for 2 workers: some workers get")


def test_packets_that_the_kernel_steers_away(node: Host, tmp_path: Path) -> None:
    assert check(node, tmp_path, fanout="cpu")["warnings"] == []
    mask = f"{1 << LAST | 1 << CPUS[0]:x}"
    file = "/sys/class/net/eth0/queues/rx-0/rps_cpus"
    node.run("sh", "-c", f"echo {mask} > {file}")
    try:
        warnings = check(node, tmp_path, fanout="cpu")["warnings"]
    finally:
        node.run("sh", "-c", f"echo 0 > {file}")
    elsewhere = CPUS[0] != LAST
    assert len(warnings) == elsewhere
    assert all(f"without a worker ({CPUS[0]})" in warning["rule"] for warning in warnings)
