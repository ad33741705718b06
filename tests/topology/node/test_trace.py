"""``lbfwd trace``, ``status`` and ``top`` beside real traffic: what is said is what happens.

client c0 ──────── n0 node n1 ──────── f0 farm (tests/topology/node/stage.py)
"""

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from lbfwd.api.client import request
from lbfwd.demo.lab import Host, eventually
from tests.topology.node.stage import FARM6, START_S, VIP4, VIP6, Node, running

pytestmark = pytest.mark.topology

CLIENT4, CLIENT6 = "198.51.100.2", "2001:db8:c::2"


def send(client: Host, source: str, port: int, vip: str) -> None:
    """A UDP packet to port 53 of a VIP."""
    script = (
        "import socket, sys; s, p, d = sys.argv[1:];"
        "k = socket.socket(socket.AF_INET6 if ':' in d else socket.AF_INET, socket.SOCK_DGRAM);"
        "k.bind((s, int(p))); k.sendto(b'x', (d, 53))"
    )
    client.run("python3", "-c", script, source, str(port), vip)


def flow(source: str, port: int, vip: str) -> list[str]:
    wrapped = (f"[{a}]" if ":" in a else a for a in (source, vip))
    return ["udp", *(f"{a}:{p}" for a, p in zip(wrapped, (port, 53), strict=True))]


def get(node: Node, resource: str) -> Any:
    return json.loads(request(node.runtime / "admin.sock", "GET", resource))


def trace(node: Node, *words: str) -> Any:
    names = ("protocol", "source", "destination")
    return get(node, "/v1/trace?" + urlencode(dict(zip(names, words, strict=True))))


def ask(node: Node, verb: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = node.host.argv(node.command(verb, *arguments))
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def allowed(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a live trace once the nodes let it: one a second and node."""

    def attempt() -> "subprocess.CompletedProcess[str] | None":
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return None if "try again" in done.stderr else done

    return eventually(attempt, START_S, "the trace is allowed") or pytest.fail("never")


def backends(status: dict[str, Any]) -> dict[str, int]:
    return {b["name"]: b["packets"] for p in status["pools"] for b in p["backends"]}


def test_a_flow_goes_where_trace_says(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        for port in range(4001, 4005):
            follow(stage.client, node, (CLIENT4, port, VIP4))
            follow(stage.client, node, (CLIENT6, port, VIP6))
        said = ask(node, "trace", *flow(CLIENT4, 4001, VIP4))
        assert said.returncode == 0, said.stderr
        assert "because   the flow table of worker" in said.stdout
        assert "outcome   forwarded" in said.stdout
        nodes(node)
        live(node)
        status = get(node, "/v1/status")
        assert {s["name"]: s["flows"] for s in status["services"]}["4in6"] == 4
        assert sum(b["flows"] for p in status["pools"] for b in p["backends"]) == 8
        assert sum(row["live"] for row in get(node, "/v1/flows")["flows"]) == 8


def follow(client: Host, node: Node, of: tuple[str, int, str]) -> None:
    """Ask, look that asking changed nothing, send, compare, and ask again."""
    before = get(node, "/v1/status")
    said = trace(node, *flow(*of))
    assert said["outcome"] == "forwarded"
    assert (said["chosen_by"], said["entries"]) == ("maglev_table", [])
    assert get(node, "/v1/status")["events"] == before["events"]
    send(client, *of)
    name, slot = said["backend"]["name"], said["worker"]
    count = sum(backends(before).values())
    eventually(lambda: sum(backends(get(node, "/v1/status")).values()) > count, 20, "forwarded")
    after = get(node, "/v1/status")
    assert backends(after) == backends(before) | {name: backends(before)[name] + 1}
    assert after["workers"][slot]["seen"] > before["workers"][slot]["seen"]
    assert said["pool"] == "six"
    assert said["outer"]["destination"] == said["backend"]["address"]
    assert said["outer"]["destination"] in FARM6
    assert said["hop"]["interface"] == said["outer"]["interface"] == "n1"
    again = trace(node, *flow(*of))
    assert again["chosen_by"] == "flow_table"
    assert [(e["worker"], e["backend"]) for e in again["entries"]] == [(slot, name)]


def nodes(node: Node) -> None:
    """The node by its listener, too, and one that is not there."""
    question = flow(CLIENT4, 4001, VIP4)
    both = ask(node, "trace", *question, "--node", "127.0.0.1")
    assert (both.returncode, both.stderr) == (0, "")
    assert both.stdout.endswith("the nodes agree\n")
    dead = ask(node, "trace", *question, "--node", "127.0.0.1:9", "--json")
    assert dead.returncode == 1
    assert "127.0.0.1:9: Connection refused" in dead.stderr
    assert json.loads(dead.stdout)["agree"] is False


def live(node: Node) -> None:
    sample = json.loads(node.host.run(*node.command("top", "--json", "--interval", "0.2")))
    assert sample["seconds"] > 0.1
    assert {s: r["flows"] for s, r in sample["services"].items()}["6in6"] == 4
    screen = ask(node, "top", "--once", "--interval", "0.2").stdout
    assert "4in6" in screen
    assert "six/fd00::11" in screen
    refused = ask(node, "top")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no terminal" in refused.stderr
