"""``lbfwd tune`` on real interfaces: what it says, what ethtool and the kernel say afterwards.

node: n0 (veth, four receive queues) under a bridge br0, and t0 (a TAP with several queues).
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, Lab
from lbfwd.tune import machine
from lbfwd.tune.step import Command, Write

pytestmark = pytest.mark.topology

CONFIG = """
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
name = "lb1"
interfaces = ["br0", "t0"]
[workers]
cpus = [{cpus}]
ring = "v2"
[[pool]]
name = "web"
backends = [{{ address = "10.0.0.11" }}]
[[service]]
vip = "192.0.2.10"
protocol = "tcp"
port = 80
pool = "web"
"""


@pytest.fixture
def node() -> Iterator[Host]:
    with Lab() as lab:
        host = lab.host("node")
        veth = "n0 numrxqueues 4 numtxqueues 4 type veth peer name n1 numrxqueues 4 numtxqueues 4"
        for command in (
            f"ip link add {veth}",
            "ip link add br0 type bridge",
            "ip link set n0 master br0",
            "ip tuntap add t0 mode tap multi_queue",
            *(f"ip link set {name} up" for name in ("n0", "n1", "br0", "t0")),
            "ip address add 10.0.0.1/24 dev br0",
            "ethtool -L n0 rx 1 tx 1",
            "ethtool -K n0 gro on",
        ):
            host.run(*command.split())
        host.run("sh", "-c", "echo 1 > /sys/class/net/t0/queues/rx-0/rps_cpus")
        yield host


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "lbfwd.toml"
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("needs two cpus")
    path.write_text(CONFIG.format(cpus=", ".join(map(str, cpus))))
    path.chmod(0o600)
    return str(path)


def tune(
    node: Host, config: str, *options: str, path: str = os.environ["PATH"]
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lbfwd.cli.main", "tune", "-c", config, *options]
    argv = node.argv(["env", f"PATH={path}", *command])
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def settings(node: Host) -> dict[str, str]:
    """What other tools say of all that may be changed."""
    channels = node.run("ethtool", "-l", "n0").partition("Current")[2]
    features = node.run("ethtool", "-k", "n0")
    found = {
        "queues": " ".join(re.findall(r"^RX:\s+(\d+)", channels, re.M)),
        "gro": " ".join(re.findall(r"^generic-receive-offload: (\w+)", features, re.M)),
    }
    rps = "grep -H . /sys/class/net/*/queues/rx-*/rps_cpus"
    found["rps"] = node.run("sh", "-c", rps)
    found["sysctls"] = node.run("sh", "-c", "cat /proc/sys/net/core/optmem_max || true")
    return found


def test_it_sets_up_what_lies_under_the_interfaces_and_tells_the_way_back(
    node: Host, config: str
) -> None:
    before = settings(node)

    foretold = tune(node, config, "--dry-run", "--json")
    assert foretold.returncode == 0, foretold.stderr
    assert settings(node) == before
    steps = json.loads(foretold.stdout)["steps"]
    assert {step["do"] for step in steps} >= {
        "ethtool -L n0 rx 2",
        "ethtool -K n0 gro off",
        "echo 0 > /sys/class/net/t0/queues/rx-0/rps_cpus",
    }

    done = tune(node, config)
    assert done.returncode == 0, done.stderr
    assert all(step["do"] in done.stdout for step in steps)
    after = settings(node)
    assert (after["queues"], after["gro"]) == ("2", "off")
    assert "t0/queues/rx-0/rps_cpus:1" in before["rps"].replace(":01", ":1")
    assert not re.search(r"t0/queues/rx-0/rps_cpus:0*1\n", after["rps"])

    again = tune(node, config)
    assert (again.returncode, again.stdout) == (0, "all is as it should be\n")

    back = done.stdout.partition("to take them back:\n")[2]
    node.run("sh", "-e", stdin=back)
    assert settings(node) == before


def test_what_is_refused_is_named_and_stops_nothing_else(
    node: Host, config: str, tmp_path: Path
) -> None:
    before = settings(node)
    done = tune(node, config, path=str(tmp_path))  # where no ethtool is
    assert done.returncode == 1
    assert "lbfwd tune: n0: receive queues: refused: ethtool: not there" in done.stderr
    after = settings(node)
    assert (after["queues"], after["gro"]) == (before["queues"], before["gro"])
    assert "t0/queues/rx-0/rps_cpus:0" in after["rps"].replace(":00", ":0")
    assert "ethtool" not in done.stdout.partition("to take them back:")[2]


def test_actions_say_why_they_could_not(tmp_path: Path) -> None:
    assert machine.act(Write(str(tmp_path / "file"), "1")) == ""
    assert (tmp_path / "file").read_text() == "1\n"
    assert machine.act(Write(str(tmp_path / "no/file"), "1")).endswith("not there")
    assert machine.act(Write(str(tmp_path), "1")) == "Is a directory"
    assert machine.act(Command(("true",))) == ""
    assert machine.act(Command(("false",))) == "exit 1"
    assert "bad" in machine.act(Command(("sh", "-c", "echo bad >&2; exit 3")))
    assert machine.act(Command(("lbfwd-no-such-tool",))) == "lbfwd-no-such-tool: not there"
