"""Every command of docs/guide.md, as written, on the machines that it is about.

client ── eth0 router eth1 ──┬── lb1          198.51.100.0/24 and 2001:db8:c::/64: the client
                │            └── lb2          203.0.113.0/24 and 2001:db8:1::/64: the nodes
               eth2 ──┬── web-a               10.0.0.0/24: the backends
                      └── web-b
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, Lab, eventually
from tests.topology.guide.blocks import Block, blocks
from tests.topology.guide.machine import ROOT, Machine

pytestmark = pytest.mark.topology
GUIDE = ROOT / "docs" / "guide.md"
LOOK_S = 60.0
PLACES = {  # name: the router's interface, addresses
    "client": ("eth0", ["198.51.100.2/24", "2001:db8:c::2/64"]),
    "lb1": ("eth1", ["203.0.113.10/24", "2001:db8:1::10/64"]),
    "lb2": ("eth1", ["203.0.113.11/24", "2001:db8:1::11/64"]),
    "web-a": ("eth2", ["10.0.0.11/24", "2001:db8:2::11/64"]),
    "web-b": ("eth2", ["10.0.0.12/24", "2001:db8:2::12/64"]),
}
ROUTER = {
    "eth0": ["198.51.100.1/24", "2001:db8:c::1/64"],
    "eth1": ["203.0.113.1/24", "2001:db8:1::1/64"],
    "eth2": ["10.0.0.1/24", "2001:db8:2::1/64"],
}


def wire(lab: Lab) -> dict[str, Host]:
    """Each of the router's interfaces is a bridge, as if a switch were behind it."""
    router = lab.host("router")
    hosts = {"router": router}
    for interface, addresses in ROUTER.items():
        router.run("ip", "link", "add", interface, "type", "bridge")
        for address in addresses:
            router.run("ip", "address", "add", address, "dev", interface)
        router.run("ip", "link", "set", interface, "up")
    for number, (name, (interface, addresses)) in enumerate(PLACES.items()):
        host = hosts[name] = lab.host(name)
        lab.link(host, "eth0", addresses, router, f"port{number}", [])
        router.run("ip", "link", "set", f"port{number}", "master", interface)
        for gateway in ROUTER[interface]:
            host.run("ip", "route", "add", "default", "via", gateway.split("/")[0])
    return hosts


@pytest.fixture
def machines() -> Iterator[Mapping[str, Machine]]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    for tool in ("bird", "nginx"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    site = Path(tempfile.mkdtemp(prefix="lbfwd-guide-"))  # pytest's are private: bird cannot read
    site.chmod(0o755)
    try:
        with Lab() as lab:
            found = {name: Machine(host, site, name) for name, host in wire(lab).items()}
            yield found
            for machine in found.values():
                machine.end()
    finally:
        shutil.rmtree(site)


def perform(block: Block, machine: Machine) -> None:
    outputs: list[str] = []

    def done() -> bool:
        result = machine.run(block.text)
        outputs.append(result.stdout)
        return result.returncode == 0 and block.shown_by(result.stdout)

    where = f"docs/guide.md:{block.line} on {machine.name}"
    if block.verb == "file":
        machine.write(block.rest.split()[0], block.text)
    elif block.verb == "run":
        assert done(), f"{where}:\n{block.text}\n{outputs[-1]}"
    else:
        try:
            eventually(done, LOOK_S, where)
        except Exception:
            print("\n".join([*block.shows, "--- instead of it:", *outputs[-1:]]))  # noqa: T201
            raise


SKIPPED = [block for block in blocks(GUIDE.read_text()) if block.verb == "skip"]


@pytest.mark.parametrize("block", SKIPPED, ids=lambda block: block.text.split("\n")[0])
def test_what_the_tests_below_leave_out(block: Block) -> None:
    assert ": " in block.rest, "what, and where else it is tested or why it cannot be"
    pytest.skip(f"docs/guide.md:{block.line}: {block.rest}")


def follow(machines: Mapping[str, Machine], variant: str) -> None:
    """Do what the guide says, from its beginning to its end."""
    try:
        for block in blocks(GUIDE.read_text()):
            if block.only in ("", variant) and block.verb != "skip":
                with ThreadPoolExecutor() as hands:  # on all hosts at once
                    list(
                        hands.map(partial(perform, block), (machines[name] for name in block.hosts))
                    )
    except BaseException:
        for machine in machines.values():
            print(f"=== {machine.name}\n{machine.logs()}")  # noqa: T201 - shown with the failure
        raise


def test_the_guide_with_bird(machines: Mapping[str, Machine]) -> None:
    follow(machines, "bird")


@pytest.mark.slow
def test_the_guide_with_frr(machines: Mapping[str, Machine]) -> None:
    if not Path("/usr/lib/frr/zebra").exists():
        pytest.skip("frr is not installed")
    follow(machines, "frr")
