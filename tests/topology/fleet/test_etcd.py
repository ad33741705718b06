"""One configuration in etcd, two nodes that follow it: pushed, refused, without etcd, and again.

lb1 n0 ──────── h1 hub h2 ──────── n0 lb2        (tests/topology/fleet/shared_site.py)
"""

import json
import re
import subprocess
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lbfwd.api.client import request
from lbfwd.demo.lab import eventually
from tests.topology.fleet.shared_site import SHARED, Site, shared_site
from tests.topology.node.stage import HASH_KEY, START_S, Node

pytestmark = pytest.mark.topology

BAD = SHARED.replace('pool = "web"', 'pool = "wbe"')
OTHER = SHARED.replace('address = "10.9.0.2"', 'address = "10.9.0.2", weight = 3')


def status(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request(node.runtime / "admin.sock", "GET", "/v1/status"))
    return found


def problems(node: Node) -> list[str]:
    found: list[str] = status(node)["shared"]["problems"]
    return found


def weights(node: Node) -> list[int]:
    return [b["weight"] for p in status(node)["pools"] for b in p["backends"]]


def backends_are_usable(node: Node) -> bool:
    return all(b["usable"] for p in status(node)["pools"] for b in p["backends"])


def until_event(node: Node, name: str) -> dict[str, Any]:
    return eventually(lambda: node.events(name), START_S, name)[-1]


def test_a_fleet_follows_etcd_and_outlives_it(tmp_path: Path) -> None:
    with shared_site(tmp_path) as site:
        for node in site.nodes.values():
            assert node.events("shared_config_absent")
            assert status(node)["services"] == []
        push_reaches_both(site)
        bad_ones_change_nothing(site)
        nodes_do_without_etcd(site)
        nodes_follow_again(site)


def push_reaches_both(site: Site) -> None:
    done = site.push(SHARED, "--yes")
    assert done.returncode == 0, done.stderr
    assert "on lb1, lb2:\n" in done.stdout
    assert "service web (pool web): added" in done.stdout
    code, fleet = site.fleet()
    first, second = (each["summary"] for each in fleet["nodes"])
    assert (code, fleet["agree"]) == (0, True)
    assert first["fingerprints"] == second["fingerprints"] != {}
    assert first["configuration"] == second["configuration"]
    assert first["shared"]["revision"] == second["shared"]["revision"]


def bad_ones_change_nothing(site: Site) -> None:
    before = site.etcd("range", {"key": b64encode(b"/lbfwd/config").decode()})
    done = site.push(BAD, "--yes")
    assert done.returncode == 1
    assert 'shared.toml: service "web".pool = "wbe": no pool has this name' in done.stderr
    kept = site.etcd("range", {"key": b64encode(b"/lbfwd/config").decode()})
    assert kept.partition('"kvs"')[2] == before.partition('"kvs"')[2]

    # Somebody writes past lbfwd: each node refuses it by itself.
    key, value = (b64encode(x.encode()).decode() for x in ("/lbfwd/config", BAD))
    site.etcd("put", {"key": key, "value": value})
    for node in site.nodes.values():
        eventually(partial(problems, node), START_S, "refused")
        shown = status(node)
        assert shown["shared"]["seen"] > shown["shared"]["revision"]
        assert "/lbfwd/config in etcd: service" in shown["shared"]["problems"][0]
        assert [service["name"] for service in shown["services"]] == ["web"]
        assert node.events("reload_refused")[-1]["who"] == "etcd"
    assert site.fleet()[0] == 1


def nodes_do_without_etcd(site: Site) -> None:
    site.kill_etcd()
    for node in site.nodes.values():
        until_event(node, "etcd_lost")
    assert weights(site.nodes["lb2"]) == [1, 1]
    again = site.restart("lb1")
    assert again.events("shared_config_from_disk")[0]["reason"].startswith("http://10.1.0.254")
    eventually(lambda: backends_are_usable(again), START_S, "usable")
    assert [service["name"] for service in status(again)["services"]] == ["web"]


def nodes_follow_again(site: Site) -> None:
    site.start_etcd()
    for node in site.nodes.values():
        until_event(node, "etcd_found")
    done = site.push(OTHER, "--yes")
    assert done.returncode == 0, done.stderr
    assert "reweighted: b 1 -> 3" in done.stdout
    assert [weights(node) for node in site.nodes.values()] == [[1, 3], [1, 3]]
    assert site.fleet()[0] == 0


@pytest.mark.slow
def test_operators_go_on_as_with_a_file(tmp_path: Path) -> None:
    with shared_site(tmp_path) as site:
        assert site.push(SHARED, "--yes").returncode == 0
        assert site.push(OTHER, "--yes").returncode == 0
        undo_is_one_nodes_own(site)
        reload_on_trial_and_push_do_not_meet(site)
        a_node_that_is_away_is_told_and_follows_later(site)
        the_hash_key_is_rotated(site)


def verb(site: Site, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return site.lbfwd(name, *arguments, "--runtime-dir", str(site.nodes[name].runtime))


def undo_is_one_nodes_own(site: Site) -> None:
    assert verb(site, "lb1", "undo").returncode == 0
    assert [weights(node) for node in site.nodes.values()] == [[1, 1], [1, 3]]
    code, fleet = site.fleet()
    assert (code, fleet["agree"]) == (1, False)
    assert [each["differs"]["services"] for each in fleet["nodes"]] == [["web"], ["web"]]
    assert verb(site, "lb1", "reload").returncode == 0, "what etcd told last is taken up again"
    assert site.fleet()[0] == 0


def reload_on_trial_and_push_do_not_meet(site: Site) -> None:
    lb2 = site.nodes["lb2"]
    lb2.file.write_text(lb2.file.read_text().replace("[workers]", 'echo = "drop"\n[workers]'))
    assert verb(site, "lb2", "reload", "--confirm", "600").returncode == 0
    done = site.push(SHARED, "--yes", "--timeout", "30")
    assert done.returncode == 1
    assert "lb2: does not run it: the last reload waits to be confirmed" in done.stderr
    assert verb(site, "lb2", "confirm").returncode == 0
    eventually(lambda: weights(lb2) == [1, 1], START_S, "it is tried again")


def a_node_that_is_away_is_told_and_follows_later(site: Site) -> None:
    site.nodes["lb2"].stop()
    done = site.push(OTHER, "--yes")
    assert done.returncode == 1
    assert "lb2: 10.2.0.1:9108: Connection refused" in done.stderr
    assert weights(site.nodes["lb1"]) == [1, 1]
    assert site.push(OTHER, "--yes", "--partial", "--timeout", "5").returncode == 1
    assert weights(site.nodes["lb1"]) == [1, 3]
    assert weights(site.restart("lb2")) == [1, 3]


def the_hash_key_is_rotated(site: Site) -> None:
    lb1 = site.nodes["lb1"]
    new = lb1.file.read_text().replace(HASH_KEY, HASH_KEY[::-1])
    (site.directory / "new.toml").write_text(new)
    done = verb(site, "lb1", "plan", str(site.directory / "new.toml"))
    assert done.returncode == 0, done.stderr
    # 62 of 251 buckets are a's, 189 b's (weights 1 and 3, give or take one): what two tables
    # that know nothing of each other differ in.
    expected = 1 - (62 / 251) ** 2 - (189 / 251) ** 2
    (moved,) = re.findall(r"buckets that move: ([0-9.]+)%", done.stdout)
    assert abs(float(moved) / 100 - expected) < 0.01
    assert HASH_KEY[::-1] not in done.stdout
    for node in site.nodes.values():
        assert node.reload(node.file.read_text().replace(HASH_KEY, HASH_KEY[::-1])).returncode == 0
        assert site.fleet()[0] == (1 if node is lb1 else 0)
