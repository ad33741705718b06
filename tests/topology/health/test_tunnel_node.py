"""``lbfwd run`` with checks through the tunnel, real nginx behind ``lbfwd backend``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbfwd.demo.topology import PLACES, VIPS, Network
from tests.topology.backend.site import snapshot
from tests.topology.health.direct_stage import conditions, of
from tests.topology.health.tunnel_site import BACKEND, Backend, chain, rules
from tests.topology.node.site import url
from tests.topology.node.stage import HASH_KEY, Node

pytestmark = pytest.mark.topology

UP = {place.name: "up" for place in PLACES}
HEALTH = """
[pool.health]
type = "http"
path = "/name"
interval_ms = 400
timeout_ms = 400
rise = 1
fall = 2
hold_down_s = 0
"""
CONFIG = (
    f"""
hash_key = "{HASH_KEY}"
[node]
interfaces = ["eth0"]
[workers]
cpus = [0]
[[pool]]
name = "web"
backends = [{", ".join(f'{{ name = "{p.name}", address = "{p.address}" }}' for p in PLACES)}]
"""
    + HEALTH
    + "".join(
        f'[[service]]\nvip = "{vip}"\nprotocol = "tcp"\nport = 80\npool = "web"\n'
        for vip in VIPS.values()
    )
)


@contextmanager
def running(network: Network, directory: Path) -> Iterator[Node]:
    node = Node(network.node, directory, CONFIG)
    try:
        yield node.ready()
    except BaseException:
        print(node.log_file.read_text())  # noqa: T201 - pytest shows it with the failure
        raise
    finally:
        if node.process.poll() is None:
            node.stop()


def names(network: Network, family: int) -> set[str]:
    fetch = ("curl", "-sS", "--fail", "--max-time", "5", url(family, "/name"))
    return {network.client.run(*fetch) for _ in range(30)}


def test_broken_decapsulation_takes_a_backend_out_and_its_repair_back(
    network: Network, backends: dict[str, Backend], tmp_path: Path
) -> None:
    before = snapshot(network.node, sysctls=False)
    with running(network, tmp_path) as node:
        assert conditions(node.status()) == UP, "ready only after the first verdicts"
        tunnel = node.status()["tunnel"]
        assert (tunnel["trouble"], tunnel["blocked"]) == ("", [])
        assert tunnel["packets"] >= 2 * len(UP), "a probe of each VIP at each backend"
        assert set(tunnel["dropped"].values()) == {0}
        with rules(backends["b"].host, chain("prerouting", "meta l4proto gre drop")):
            node.until(lambda s: conditions(s) == UP | {"b": "down"}, "b is out")
            reason = of(node.status(), "b")["health_reason"]
            assert "no answer within 400 ms" in reason
            assert f"through the tunnel to {BACKEND['b']}" in reason
            assert names(network, 4) == {"a", "c"}
        node.until(lambda s: conditions(s) == UP, "b is back")
        assert names(network, 6) == set(UP)
        drops = node.status()["drops"]
        assert {reason: n for reason, n in drops.items() if n} == {}, "no probe came to the workers"
        assert node.stop() == 0
    assert snapshot(network.node, sysctls=False) == before


@pytest.mark.slow
def test_a_node_that_was_killed_is_followed_by_one_that_checks_as_well(
    network: Network, backends: dict[str, Backend], tmp_path: Path
) -> None:
    before = snapshot(network.node, sysctls=False)
    with running(network, tmp_path) as first:
        first.process.kill()
        first.process.wait()
        first.log_file.write_text("")  # the second one's "ready" is waited for
        with running(network, tmp_path) as second:
            second.until(lambda s: conditions(s) == UP, "all are up")
            assert second.stop() == 0
    assert snapshot(network.node, sysctls=False) == before
