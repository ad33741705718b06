"""Reloads that fail half-way, for real causes: the node goes on as it was, and loses nothing.

client c0 ──── n0 node n1 ──── f0 farm        (tests/topology/node/stage.py)
client c2 … ── n2 … "                         wanted by the reload that fails
"""

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lbfwd.demo.lab import eventually
from tests.topology.node.stage import CONFIG, VIP4, Stage, running
from tests.topology.node.test_changes import Traffic, in_order_by_flow

pytestmark = pytest.mark.topology

DEADLINE_S = 20
NEW = (2, 3, 4, 5)
# Small rings: four more interfaces have some, for a moment. 128 blocks of 20 ms: packets can wait
# for 2.5 s, on a machine that is busy with other things.
RINGS = "rx_ring_mib = 16\nrx_retire_ms = 20\n"
OLD = CONFIG.replace("tx_ring_frames", f"{RINGS}tx_ring_frames")
ANOTHER_SERVICE = f"""
[[service]]
name = "another"
vip = "{VIP4}"
protocol = "tcp"
port = 8080
pool = "four"
"""
WORKERS = OLD.replace("tx_ring_frames", "busy_poll_us = 50\ntx_ring_frames")
INTERFACES = WORKERS.replace('["n0"]', str(["n0", *(f"n{n}" for n in NEW)]).replace("'", '"'))
# A process takes eight descriptors to start, the request one; four interfaces sixteen.
SPARE = 12
STACK_BYTES = 64 << 10  # execve(2): arguments and environment have a quarter of it


def descriptors(pid: int) -> tuple[int, int]:
    """The limit with which a process can open SPARE more: it is on their numbers."""
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = [number for number in range(len(taken) + SPARE + 1) if number not in taken]
    return resource.RLIMIT_NOFILE, free[SPARE]


def stack(_pid: int) -> tuple[int, int]:
    """The limit with which the processes that it starts have no room for their arguments."""
    return resource.RLIMIT_STACK, STACK_BYTES


@contextmanager
def limited(pid: int, kind: int, value: int) -> Iterator[None]:
    """Have a process get by with this (getrlimit(2), the soft limit)."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


def wires(stage: Stage) -> None:
    for n in NEW:
        stage.lab.link(stage.client, f"c{n}", [], stage.node, f"n{n}", [])


def shown(status: dict[str, Any]) -> dict[str, Any]:
    """What a status says of the configuration, and who has how many slots."""
    return {
        "interfaces": [(i["name"], i["receives"], i["tx_index"]) for i in status["interfaces"]],
        "services": [(s["name"], s["fingerprint"]) for s in status["services"]],
        "workers": [(w["cpu"], w["state"], w["settings"]) for w in status["workers"]],
        "rings": [[ring["interface"] for ring in w["rings"]] for w in status["workers"]],
        "pools": [(p["name"], [b["slots"] for b in p["backends"]]) for p in status["pools"]],
    }


@pytest.mark.parametrize(
    ("config", "limit", "complaint"),
    [
        pytest.param(
            INTERFACES,
            descriptors,
            "open a packet socket: Too many open files",
            id="rings",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            WORKERS, stack, "worker 0 (cpu 0): hello: ", id="workers", marks=pytest.mark.slow
        ),
    ],
)
def test_what_cannot_be_opened_leaves_all_as_it_was(
    tmp_path: Path, config: str, limit: Callable[[int], tuple[int, int]], complaint: str
) -> None:
    with running(tmp_path, OLD) as (stage, node):
        wires(stage)
        before = shown(node.status())
        with Traffic(stage, node) as traffic:
            with limited(node.process.pid, *limit(node.process.pid)):
                done = node.reload(config + ANOTHER_SERVICE)
            after = shown(node.status())
            traffic.moment()
            again = node.reload(config + ANOTHER_SERVICE)
            traffic.moment()
            sent, arrived = traffic.finish()
        assert (done.returncode, complaint in done.stderr) == (1, True), done.stderr
        assert after == before
        assert [event["reason"] for event in node.events("reload_failed")] == [done.stderr.strip()]
        assert (again.returncode, again.stderr) == (0, "")
        now = shown(node.status())
        assert "another" in [name for name, _fingerprint in now["services"]]
        assert {settings["busy_poll_us"] for _cpu, _state, settings in now["workers"]} == {50}
        check_nothing_lost(traffic, sent, arrived)


def check_nothing_lost(traffic: Traffic, sent: int, arrived: list[int]) -> None:
    workers = traffic.node.status()["workers"]
    assert not any(ring["drops"] for worker in workers for ring in worker["rings"])
    forwarded, drops, _seen = traffic.growth()
    assert (forwarded, drops) == (sent, {})
    assert sorted(arrived) == list(range(sent))
    assert in_order_by_flow(arrived)
    assert not traffic.node.events("worker_died")


@pytest.mark.slow
def test_an_interface_that_vanishes_half_way(tmp_path: Path) -> None:
    """It is deleted while workers are replaced, after the configuration was found to be right."""
    with running(tmp_path, OLD) as (stage, node):
        wires(stage)
        with Traffic(stage, node) as traffic:
            node.file.write_text(INTERFACES + ANOTHER_SERVICE)
            argv = node.host.argv(node.command("reload"))
            with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as reload:
                eventually(lambda: bool(node.events("worker_replaced")), DEADLINE_S, "half-way")
                stage.node.run("ip", "link", "delete", "n3")
                _out, complaint = reload.communicate(timeout=DEADLINE_S)
            status = node.status()
            traffic.moment()
            sent, arrived = traffic.finish()
        # Like any interface that goes: the rest is taken up, and it is when it is back.
        assert (reload.returncode, complaint) == (0, "")
        states = {i["name"]: i["state"] for i in status["interfaces"] if i["receives"]}
        assert states == {"n0": "up", "n2": "up", "n3": "gone", "n4": "up", "n5": "up"}
        assert [event["interface"] for event in node.events("interface_gone")] == ["n3"]
        check_nothing_lost(traffic, sent, arrived)
        stage.lab.link(stage.client, "c3", [], stage.node, "n3", [])
        node.until(lambda s: all("n3" in (r["interface"] for r in w["rings"])
                                 for w in s["workers"]), "it has rings")  # fmt: skip
