"""The real ``lbfwd doctor`` on a node and on backends that run, and with things broken on purpose.

client ── router ── node, and three backends behind the router       (lbfwd/demo/topology.py)
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, Lab, eventually
from lbfwd.demo.topology import NODE, PLACES, VIPS
from tests.topology.node.site import Site

pytestmark = pytest.mark.topology

DEADLINE_S = 30
NFT = """#!/bin/sh
case "$*" in *-f*)
  if [ -e {full} ]; then
    echo "Error: Could not process rule: Cannot allocate memory" >&2
    exit 1
  fi
esac
exec {nft} "$@"
"""
KIT = [word for vip in VIPS.values() for word in ("--vip", vip)] + ["--node", NODE[4]]


@dataclass(frozen=True)
class Said:
    code: int
    findings: dict[str, list[dict[str, str]]]
    complaint: str

    def broken(self, role: str) -> dict[str, str]:
        """What is broken, by check; one line a check."""
        return {f["check"]: f["what"] for f in self.findings[role] if f["level"] == "broken"}


class Doctor:
    """``lbfwd doctor`` while it looks; several look at the same time."""

    def __init__(self, host: Host, *arguments: str) -> None:
        argv = host.argv([sys.executable, "-m", "lbfwd.cli.main", "doctor", "--json", *arguments])
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen(argv, text=True, **pipes)  # type: ignore[call-overload]

    def said(self) -> Said:
        try:
            out, err = self._process.communicate(timeout=DEADLINE_S)
        finally:
            self._process.kill()
        return Said(self._process.returncode, json.loads(out) if out else {}, err)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that comes first in PATH, with an nft that changes nothing while FULL is there.

    What is broken on purpose has to stay broken: lbfwd puts its guard back within milliseconds.
    """
    folder = tmp_path_factory.mktemp("tools")
    real = shutil.which("nft")
    (folder / "nft").write_text(NFT.format(full=folder / "FULL", nft=real))
    (folder / "nft").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> Iterator[Site]:
    with Lab() as lab:
        found = Site(lab, tmp_path_factory.mktemp("doctor"))
        found.node.file.chmod(0o600)  # it holds a hash_key
        say_lbfwd(tools, found)
        yield found


def say_lbfwd(tools: Path, site: Site) -> None:
    """Have fixes find the ``lbfwd`` that they name, and that it means this node."""
    runtime = site.node.runtime
    script = f'#!/bin/sh\nexec {sys.executable} -m lbfwd.cli.main "$@" --runtime-dir {runtime}\n'
    (tools / "lbfwd").write_text(script)
    (tools / "lbfwd").chmod(0o755)


def fix(host: Host, command: str) -> "subprocess.CompletedProcess[str]":
    """Run what the doctor has said."""
    argv = host.argv(["sh", "-c", command])
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def node_arguments(site: Site) -> list[str]:
    return ["--runtime-dir", str(site.node.runtime)]


def test_what_is_well_is_not_called_broken(site: Site) -> None:
    backend = site.network.backends["a"]
    looking = [Doctor(site.network.node, *node_arguments(site)), Doctor(backend)]
    node, kit = (doctor.said() for doctor in looking)
    assert (node.code, list(node.findings), node.broken("node")) == (0, ["node"], {}), node
    assert (kit.code, list(kit.findings), kit.broken("backend")) == (0, ["backend"], {}), kit
    # Each check has been made, and this machine has been seen.
    checks = {finding["check"] for finding in node.findings["node"]}
    assert {"guard", "mtu", "next hops", "ring drops", "offloads", "cores", "kernel"} <= checks
    checks = {finding["check"] for finding in kit.findings["backend"]}
    assert {"tunnel", "vip", "rp_filter", "arp", "filter", "nodes", "mss", "servers"} <= checks


def test_what_is_broken_on_a_node(site: Site) -> None:
    host, backend = site.network.node, PLACES[0]
    vip, file = VIPS[4], site.node.file
    host.run("ip", "address", "add", f"{vip}/32", "dev", "lo")
    host.run("ip", "route", "add", "blackhole", f"{backend.address}/32")
    host.run("ethtool", "-K", "eth0", "gro", "on")
    file.chmod(0o644)
    try:
        name = backend.name
        site.node.until(lambda s: not _backend(s, name)["hops"], "the way to a is gone")
        looking = Doctor(host, *node_arguments(site)).said()
    finally:
        host.run("ip", "address", "del", f"{vip}/32", "dev", "lo")
        host.run("ip", "route", "del", "blackhole", f"{backend.address}/32")
        file.chmod(0o600)
    assert looking.code == 1
    broken = looking.broken("node")
    assert set(broken) == {"addresses", "next hops", "hash_key"}
    assert broken["addresses"] == f"VIP {vip} is an address of lo"
    assert broken["next hops"] == "pool web, backend a: route is blackhole"
    assert broken["hash_key"] == f"{file}: mode 0644"
    offloads = [f["what"] for f in looking.findings["node"] if f["check"] == "offloads"]
    assert offloads == ["eth0: gro"]
    # The fixes are commands that make it right: those of the test above find nothing any more.
    site.node.until(lambda s: bool(_backend(s, name)["hops"]), "the way to a is back")


def test_a_guard_that_goes_and_one_that_cannot_be_put_back(site: Site, tools: Path) -> None:
    host, node, full = site.network.node, site.node, tools / "FULL"
    host.run("nft", "delete", "table", "netdev", "lbfwd")
    eventually(lambda: len(node.events("guard_installed")) == 2, DEADLINE_S, "it is put back")
    full.touch()
    host.run("nft", "delete", "table", "netdev", "lbfwd")
    eventually(lambda: bool(node.events("reconcile_failed")), DEADLINE_S, "it cannot be put back")
    looking = Doctor(host, *node_arguments(site)).said()
    assert (looking.code, set(looking.broken("node"))) == (1, {"guard"})
    assert looking.broken("node")["guard"] == "table netdev lbfwd is missing or changed"
    (command,) = [f["fix"] for f in looking.findings["node"] if f["check"] == "guard"]
    refused = fix(host, command)
    assert refused.returncode == 1
    assert "ingress guard: nft -f -: Error: Could not process rule" in refused.stderr
    full.unlink()
    mended = fix(host, command)
    assert mended.returncode == 0, mended.stderr
    again = Doctor(host, *node_arguments(site)).said()
    assert (again.code, again.broken("node")) == (0, {}), again


def _backend(status: dict, name: str) -> dict:  # type: ignore[type-arg]
    return next(b for pool in status["pools"] for b in pool["backends"] if b["name"] == name)


def test_what_is_broken_on_a_backend(site: Site) -> None:
    broken_one, stranger = site.network.backends["a"], site.network.client
    devices = json.loads(broken_one.run("ip", "-j", "link"))
    (tunnel,) = [link["ifname"] for link in devices if link["ifname"].startswith("lbfwd-")]
    broken_one.sysctl(**{f"ipv4__conf__{tunnel}__rp_filter": 2, "ipv4__conf__all__arp_ignore": 0})
    looking = [
        Doctor(broken_one),
        Doctor(stranger, "backend", *KIT),  # nothing of a backend is there
        Doctor(stranger),  # neither node nor backend
        Doctor(stranger, "backend"),
    ]
    backend, forced, neither, unnamed = (doctor.said() for doctor in looking)
    assert (backend.code, set(backend.broken("backend"))) == (1, {"rp_filter", "arp"})
    assert backend.broken("backend")["rp_filter"].startswith(f"{tunnel}: 2 ")
    assert (forced.code, set(forced.broken("backend"))) == (1, {"tunnel", "vip", "arp", "servers"})
    assert (neither.code, "neither a node" in neither.complaint) == (1, True)
    assert (unnamed.code, "name every --vip" in unnamed.complaint) == (1, True)
    # What it said helps.
    for fix in [f["fix"] for f in backend.findings["backend"] if f["level"] == "broken"]:
        broken_one.run("sh", "-c", fix)
    again = Doctor(broken_one).said()
    assert (again.code, again.broken("backend")) == (0, {}), again


def test_a_node_that_does_not_run(site: Site) -> None:
    assert site.node.stop() == 0
    eventually(lambda: not (site.node.runtime / "admin.sock").exists(), DEADLINE_S, "stopped")
    looking = Doctor(site.network.node, "node", "-c", str(site.node.file), *node_arguments(site))
    said = looking.said()
    assert said.code == 1
    assert set(said.broken("node")) == {"process"}
