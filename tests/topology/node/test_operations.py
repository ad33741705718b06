"""Changes as an operator makes them: foreseen, refused, taken back, drained; by the real CLI."""

import json
import os
import pwd
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.l2 import Ether

from lbfwd.demo.lab import Lab, eventually
from tests.oracle import maglev
from tests.topology.node.site import Site, url
from tests.topology.node.stage import CONFIG, FARM4, FARM6, START_S, Node, running
from tests.topology.node.test_flows import (
    FLOWS,
    Connection,
    arrived,
    config_of,
    connections,
    packet,
    site_config,
)

pytestmark = pytest.mark.topology

ME = pwd.getpwuid(os.geteuid()).pw_name
WITHOUT_13 = CONFIG.replace(', { address = "10.0.0.13" }', "")
DOWNLOAD_BYTES = 40_000_000


def lbfwd(node: Node, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = node.host.argv(node.command(*arguments))
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def plan(node: Node, directory: Path, config: str) -> dict[str, Any]:
    file = directory / "planned.toml"
    file.write_text(config)
    done = lbfwd(node, "plan", str(file), "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def moved(old: Mapping[str, int], new: Mapping[str, int]) -> int:
    tables = maglev.table(old, 251), maglev.table(new, 251)
    return sum(a != b for a, b in zip(*tables, strict=True))


def test_what_is_planned_is_what_happens(tmp_path: Path) -> None:
    """One backend leaves, others are reweighted; each flow's fate is seen at the farm."""
    weights = {"fd00::11": 7, "fd00::12": 0}
    other = config_of(weights).replace(', { address = "10.0.0.13" }', "")
    even = dict.fromkeys(FARM4, 1), dict.fromkeys(FARM6, 1)
    buckets = {4: moved(even[0], dict.fromkeys(FARM4[:2], 1)), 6: moved(even[1], even[1] | weights)}
    with running(tmp_path) as (stage, node):
        ethernet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        frames = [bytes(ethernet / packet(n, first=False)) for n in range(FLOWS)]
        for frame in frames:
            source.send(frame)
        before = arrived(sink)
        foreseen = plan(node, tmp_path, other)
        assert node.status()["generation"] == 1, "nothing was changed"
        assert node.reload(other).returncode == 0
        for frame in frames:
            source.send(frame)
        after = arrived(sink)
    services = {service["name"]: service for service in foreseen["services"]}
    assert {name: s["buckets"] for name, s in services.items()} == {
        "4in4": buckets[4], "6in4": buckets[4], "4in6": buckets[6], "6in6": buckets[6],
    }  # fmt: skip
    lost = [number for number in before if before[number] != after[number]]
    assert lost
    assert all(before[number] == {"10.0.0.13"} for number in lost)
    broken = Counter("4in4" if number % 2 else "6in4" for number in lost)
    assert {name: s["breaking"] for name, s in services.items() if s["breaking"]} == broken
    assert foreseen["breaking"] == len(lost)
    assert sum(s["flows"] for s in services.values()) == FLOWS


def test_a_reload_that_would_move_too_much_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as (_stage, node):
        node.file.write_text(WITHOUT_13)
        done = lbfwd(node, "reload", "--max-moved", "5%")
        assert done.returncode == 1
        assert "of its buckets would move, more than --max-moved 0.05" in done.stderr
        assert node.status()["generation"] == 1
        assert lbfwd(node, "reload", "--max-moved", "90").returncode == 0
        assert node.status()["generation"] == 2
        assert lbfwd(node, "reload", "--max-moved", "all").returncode == 2


@pytest.mark.slow
def test_undo_and_reloads_that_nobody_confirms(tmp_path: Path) -> None:
    def backends(node: Node) -> int:
        return len(node.status()["pools"][0]["backends"])

    with running(tmp_path) as (_stage, node):
        assert "nothing to undo" in lbfwd(node, "undo").stderr
        assert "no reload waits" in lbfwd(node, "confirm").stderr
        node.file.write_text(WITHOUT_13)
        assert lbfwd(node, "reload", "--confirm", "60").returncode == 0
        assert backends(node) == 2
        refused = lbfwd(node, "reload")
        assert (refused.returncode, "waits to be confirmed" in refused.stderr) == (1, True)
        assert lbfwd(node, "confirm").returncode == 0
        node.file.write_text("not TOML")
        assert lbfwd(node, "undo").returncode == 0, "also when the file has changed since"
        assert backends(node) == 3
        assert "nothing to undo" in lbfwd(node, "undo").stderr
        node.file.write_text(WITHOUT_13)
        assert lbfwd(node, "reload", "--confirm", "0.5").returncode == 0
        node.until(lambda s: len(s["pools"][0]["backends"]) == 3, "it goes back by itself")
        (event,) = node.events("reload_expired")
        assert event["changes"] == ['pool "four".backends "10.0.0.13": absent -> present']


@pytest.mark.slow
def test_what_an_operator_said_survives_a_restart(tmp_path: Path) -> None:
    flags = ["--state-dir", str(tmp_path / "state")]
    with running(tmp_path, flags=flags) as (stage, node):
        assert lbfwd(node, "drain", "10.0.0.11").returncode == 0
        assert lbfwd(node, "disable", "fd00::12", "--pool", "six").returncode == 0
        wrong = lbfwd(node, "drain", "10.0.0.99")
        assert wrong.returncode == 1
        assert wrong.stderr.startswith("no backend '10.0.0.99': 10.0.0.11, 10.0.0.12, ")
        assert node.stop() == 0
        node.log_file.unlink()
        again = Node(stage.node, tmp_path, CONFIG, flags).ready()
        status = again.status()
        found = {b["name"]: b for pool in status["pools"] for b in pool["backends"]}
        assert [found[name]["condition"] for name in ("10.0.0.11", "fd00::12", "fd00::11")] == [
            "drained", "disabled", "up",
        ]  # fmt: skip
        assert ME in found["10.0.0.11"]["health_reason"]
        assert (found["10.0.0.11"]["slots"], found["fd00::12"]["slots"]) == (0, 0)
        assert "is disabled, not drained" in lbfwd(again, "undrain", "fd00::12").stderr
        assert lbfwd(again, "enable", "fd00::12").returncode == 0
        assert lbfwd(again, "undrain", "10.0.0.11").returncode == 0
        again.until(lambda s: all(b["slots"] for p in s["pools"] for b in p["backends"]), "all")


def test_a_client_that_hangs_up_leaves_nothing_half_done(tmp_path: Path) -> None:
    """Two reloads at once, one of whose askers does not wait; and half a request."""
    with running(tmp_path) as (_stage, node):
        node.file.write_text(WITHOUT_13)
        for body in (b"", b'{"max_moved": '):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(node.runtime / "admin.sock"))
                head = f"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) * 2}"
                client.sendall(head.encode() + b"\r\n\r\n" + body)
        assert lbfwd(node, "reload").returncode == 0
        eventually(lambda: len(node.events("reloaded")) == 2, START_S, "both reloads are done")
        assert [len(event["changes"]) for event in node.events("reloaded")] == [1, 0]
        assert node.status()["generation"] == 2


def test_drain_under_load(tmp_path: Path) -> None:
    """A long download goes on where it is; nothing new comes there; then nothing is left."""
    config = site_config({"a": 1, "b": 1})
    config = config.replace("[[pool]]", "[flows]\ntcp_closing_s = 1\n[[pool]]", 1)
    with Lab() as lab:
        site = Site(lab, tmp_path, config, ["--state-dir", str(tmp_path / "state")])
        client, node = site.network.client, site.node
        data = os.urandom(DOWNLOAD_BYTES)
        for backend in site.backends.values():
            (backend.root / "files" / "big").write_bytes(data)
        with connections(client, 1) as (connection,):
            name = connection.ask()
            download = Download(connection)
            got = download.read(DOWNLOAD_BYTES // 8)
            assert lbfwd(node, "drain", name).returncode == 0
            other = {"a": "b", "b": "a"}[name]
            names = Counter(site.curl(url(family, "/name")) for family in (4, 6) * 10)
            assert names == {other: 20}, "no new flow arrives there"
            got += download.read(DOWNLOAD_BYTES // 8)
            waited = lbfwd(node, "drain", name, "--wait", "--timeout", "0.1")
            assert (waited.returncode, waited.stdout.splitlines()[-1]) == (1, "1 live flow")
            got += download.read(DOWNLOAD_BYTES - len(got))
            assert got == data
            download.close()
        waited = lbfwd(node, "drain", name, "--wait")
        assert (waited.returncode, waited.stdout.splitlines()[-1]) == (0, "0 live flows")
        status = node.status()
        assert status["events"]["flow_redirected"] == 0
        assert not any(status["drops"].values())


class Download:
    """A file that is read as the test goes on."""

    def __init__(self, connection: Connection) -> None:
        connection.socket.sendall(b"GET /big HTTP/1.1\r\nHost: vip\r\n\r\n")
        self._stream = connection.socket.makefile("rb")
        while self._stream.readline() != b"\r\n":
            pass

    def read(self, size: int) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        """Let go of the connection: it is closed when its owner closes it, too."""
        self._stream.close()
