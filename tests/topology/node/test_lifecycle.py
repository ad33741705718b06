"""Start, stop and refusal: nothing is half-done, and what was changed is put back."""

import os
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lbfwd.demo.lab import Lab, eventually
from tests.topology.node.stage import CONFIG, HASH_KEY, START_S, VIP4, Node, Stage, running
from tests.topology.node.test_oracle import is_gre
from tests.topology.node.wires import frames

pytestmark = pytest.mark.topology


def machine_state(stage: Stage) -> dict[str, list[str]]:
    """Everything of the node's namespace that lbfwd could have changed."""
    run = stage.node.run
    # Link-local addresses come a moment after their links.
    eventually(lambda: run("ip", "-6", "-o", "address", "show", "scope", "link").count("\n") == 2
               and "tentative" not in run("ip", "address"), START_S, "addresses")  # fmt: skip
    text = {
        "nft": run("nft", "list", "ruleset"),
        "addresses": run("ip", "-o", "address", "show"),
        "routes": run("ip", "route", "show", "table", "all"),
        "routes6": run("ip", "-6", "route", "show", "table", "all", "proto", "static"),
        "rules": run("ip", "rule"),
        "managed": run("sh", "-c", "ip neigh show | grep -c managed || true"),
        "sysctls": run("sysctl", "-a", "-r", r"^net\.ipv4\.conf\..*(rp_filter|forwarding|arp_)"),
        "packet sockets": run("sh", "-c", "wc -l < /proc/net/packet"),
    }
    return {what: sorted(lines.splitlines()) for what, lines in text.items()}


def lives(pid: int) -> bool:
    """Whether the process still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_stop_restores_everything(tmp_path: Path, signal: str) -> None:
    with Lab() as lab:
        stage = Stage(lab)
        before = machine_state(stage)
        node = Node(stage.node, tmp_path, CONFIG).ready()
        workers = [worker["pid"] for worker in node.status()["workers"]]
        assert machine_state(stage) != before
        stage.node.run("kill", f"-{signal}", str(node.process.pid))
        assert node.process.wait(START_S) == 0
        assert machine_state(stage) == before
        assert not [pid for pid in workers if lives(pid)]
        # The lock file stays: taking it away would let two of us hold "the" lock.
        assert [file.name for file in node.runtime.iterdir()] == ["lock"]


def test_start_that_fails_half_way_restores_everything(tmp_path: Path) -> None:
    # The admin socket's place is taken by a directory: found out last, when all else is done.
    with Lab() as lab:
        stage = Stage(lab)
        before = machine_state(stage)
        (tmp_path / "run" / "admin.sock" / "occupied").mkdir(parents=True)
        node = Node(stage.node, tmp_path, CONFIG)
        assert node.process.wait(START_S) == 1
        assert node.events("guard_installed"), "it had come that far"
        assert not node.events("ready")
        assert machine_state(stage) == before


def test_second_run_in_the_same_runtime_directory_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        argv = stage.node.argv(node.command("run", "-c", str(node.file)))
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert str(node.process.pid) in done.stderr
        assert str(node.runtime) in done.stderr
        assert node.status()["generation"] == 1


def test_missing_capability_is_named(tmp_path: Path) -> None:
    with Lab() as lab:
        stage = Stage(lab)
        (tmp_path / "lbfwd.toml").write_text(CONFIG)
        for missing in ("net_admin", "net_raw"):
            drop = ["setpriv", f"--bounding-set=-{missing}", f"--inh-caps=-{missing}"]
            run = [
                "sh",
                "-c",
                f'exec "$@" run -c {tmp_path}/lbfwd.toml --runtime-dir {tmp_path}/run',
            ]
            python = ["lbfwd", os.sys.executable, "-m", "lbfwd.cli.main"]
            argv = stage.node.argv([*drop, *run, *python])
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert f"CAP_{missing.upper()}" in done.stderr


def test_all_problems_are_reported_at_once_and_nothing_is_touched(tmp_path: Path) -> None:
    config = (
        CONFIG.replace("[0, 1]", "[0, 1, 2, 3, 77]")
        .replace('"n0"', '"nowhere0"')
        .replace(f'vip = "{VIP4}"', 'vip = "192.0.2.300"')
        .replace("table_size = 251", "table_size = 250")
        .replace('pool = "six"', 'pool = "seven"')
    )
    with Lab() as lab:
        stage = Stage(lab)
        before = machine_state(stage)
        node = Node(stage.node, tmp_path, config)
        assert node.process.wait(START_S) == 1
        text = node.log_file.read_text()
        for value in ("nowhere0", "192.0.2.300", "250", "seven", "77"):
            assert value in text
        assert HASH_KEY not in text
        assert machine_state(stage) == before


def test_secret_is_nowhere(tmp_path: Path) -> None:
    with running(tmp_path) as (_stage, node):
        node.reload(CONFIG.replace(HASH_KEY, HASH_KEY[:-2]))
        texts = [node.log_file.read_text(), str(node.status())]
        assert not any(HASH_KEY in text or HASH_KEY[:-2] in text for text in texts)


def test_worker_has_no_capability(tmp_path: Path) -> None:
    with running(tmp_path) as (_stage, node):
        for worker in node.status()["workers"]:
            status = Path(f"/proc/{worker['pid']}/status").read_text()
            sets = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
            assert {int(value, 16) for value in sets.values()} == {0}
            assert os.sched_getaffinity(worker["pid"]) == {worker["cpu"]}


def test_guard_keeps_the_nodes_own_stack_out(tmp_path: Path) -> None:
    """With ip_forward on, the stack would forward VIP packets a second time, by its own route."""
    with running(tmp_path) as (stage, node):
        stage.node.sysctl(ipv4__ip_forward=1)
        stage.node.run("ip", "route", "add", VIP4, "via", "10.0.0.13")
        packet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
        frame = bytes(packet / IP(src="198.51.100.2", dst=VIP4) / UDP(sport=1, dport=2) / b"x")
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        for _ in range(100):
            source.send(frame)
        got = frames(sink)
        assert sum(is_gre(f) for f in got) == 100
        assert not [f for f in got if f[30:34] == bytes([192, 0, 2, 10])]
        # Somebody flushes the rules: the guard is put back.
        stage.node.run("nft", "flush", "ruleset")
        eventually(
            lambda: "192.0.2.10" in stage.node.run("nft", "list", "ruleset"), START_S, "guard"
        )
        # The counter-test: without it the stack does forward.
        assert node.stop() == 0
        source.send(frame)
        assert [f for f in frames(sink) if f[30:34] == bytes([192, 0, 2, 10])]


def test_backend_without_next_hop_gets_no_traffic(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        stage.farm.run("ip", "address", "delete", "10.0.0.12/24", "dev", "f0")
        stage.node.run("ip", "neigh", "flush", "dev", "n1")
        status = node.until(
            lambda s: not backend(s, "10.0.0.12")["usable"], "the neighbour is lost"
        )
        assert backend(status, "10.0.0.12")["reason"]
        assert backend(status, "10.0.0.12")["slots"] == 0
        events = node.events("backend_down")
        assert any(e["backend"] == "10.0.0.12" and "10.0.0.12" in e["reason"] for e in events)
        stage.farm.run("ip", "address", "add", "10.0.0.12/24", "dev", "f0")
        node.until(lambda s: backend(s, "10.0.0.12")["usable"], "it is found again")


def backend(
    status: dict[str, list[dict[str, list[dict[str, object]]]]], name: str
) -> dict[str, object]:
    return next(b for pool in status["pools"] for b in pool["backends"] if b["name"] == name)


def test_supervisor_that_was_killed_leaves_workers_forwarding_and_is_succeeded(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as (stage, node):
        workers = [worker["pid"] for worker in node.status()["workers"]]
        node.process.kill()
        node.process.wait()
        packet = Ether(src=stage.mac(stage.client, "c0"), dst=stage.mac(stage.node, "n0"))
        frame = bytes(packet / IP(src="198.51.100.2", dst=VIP4) / UDP(sport=1, dport=2) / b"x")
        source, sink = stage.tap(stage.client, "c0"), stage.tap(stage.farm, "f0")
        for _ in range(100):
            source.send(frame)
        assert sum(map(is_gre, frames(sink))) == 100
        node.log_file.unlink()
        successor = Node(stage.node, tmp_path, CONFIG).ready()
        assert not [pid for pid in workers if lives(pid)]
        for _ in range(100):
            source.send(frame)
        assert sum(map(is_gre, frames(sink))) == 100
        assert successor.stop() == 0
