"""What Prometheus is told by a real node, compared with the traffic that was sent."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lbfwd.demo.lab import eventually
from tests.topology.node.stage import CONFIG, FARM4, START_S, VIP4, Node, Stage, running
from tests.topology.node.wires import inside

pytestmark = pytest.mark.topology

METRICS = "127.0.0.1:9108"
LISTEN = '[metrics]\nlisten = "{}"\n'
DATAGRAMS = 200


def scrape(
    node: Node, listen: str = METRICS
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = node.host.run("curl", "-sS", "--fail", "--max-time", "20", f"http://{listen}/metrics")
    return {
        (sample.name.removeprefix("lbfwd_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(
    found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **only: str
) -> float:
    """The sum of all series of a name that have these labels."""
    values = [v for (n, labels), v in found.items() if n == name and only.items() <= set(labels)]
    assert values, name
    return sum(values)


def send(stage: Stage, datagrams: int) -> None:
    """One flow: all from one port."""
    with inside(stage.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for number in range(datagrams):
            sock.sendto(b"%04d" % number, (VIP4, 53))


def listens(node: Node, listen: str) -> bool:
    return listen in node.host.run("ss", "-Hlnt")


def test_the_numbers_are_those_of_the_traffic_in_the_right_form(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, node):
        before = scrape(node)
        send(stage, DATAGRAMS)
        eventually(lambda: node.forwarded() == DATAGRAMS, START_S, "everything is forwarded")
        # Live flows are counted when asked for, but not again within half a second.
        eventually(
            lambda: total(scrape(node), "service_flows") == 1, START_S, "the flow is counted"
        )
        after = scrape(node)
        size = DATAGRAMS * (20 + 8 + 4)
        assert total(before, "service_packets_total") == 0
        assert total(after, "service_packets_total", service="4in6") == DATAGRAMS
        assert total(after, "service_bytes_total", service="4in6") == size
        assert total(after, "backend_packets_total", pool="six") == DATAGRAMS
        assert total(after, "backend_bytes_total", pool="six") == size
        assert total(after, "worker_packets_total") == DATAGRAMS
        assert total(after, "ring_packets_total", interface="n0") == DATAGRAMS
        assert total(after, "dropped_packets_total") == 0
        # One socket, one flow: an entry in one worker's table, at one backend.
        assert total(after, "events_total", event="flow_new") == 1
        assert total(after, "worker_flows") == 1
        assert total(after, "service_flows", service="4in6") == 1
        assert total(after, "backend_flows", pool="six") == 1
        assert total(after, "backend_up") == 6
        status = node.status()
        assert total(after, "generation") == status["generation"]
        for service in status["services"]:
            names = {"service": service["name"], "fingerprint": service["fingerprint"]}
            assert total(after, "service_fingerprint_info", **names) == 1
        # The same node says them in the right form, and to itself alone; and it only looks.
        text = node.host.run("curl", "-sS", "--fail", f"http://{METRICS}/metrics")
        command = ["promtool", "check", "metrics"]
        result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        answer = node.host.run("curl", "-sS", "--fail", f"http://{METRICS}/v1/status")
        assert json.loads(answer)["node"] == "lb1"
        code = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"]
        assert node.host.run(*code, f"http://{METRICS}/v1/reload") == "404"
        assert listens(node, METRICS)
        assert not listens(node, "0.0.0.0:9108")
        assert not listens(node, "*:9108")


@pytest.mark.slow
def test_a_reload_moves_the_listener_or_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as (_stage, node):
        everywhere = "0.0.0.0:9108"
        assert node.reload(CONFIG + LISTEN.format(everywhere)).returncode == 0
        assert listens(node, everywhere)
        generation = node.status()["generation"]
        fewer = CONFIG.replace(', { address = "10.0.0.13" }', "")
        with inside(node.host, lambda: socket.create_server(("127.0.0.1", 9200))):
            refused = node.reload(fewer + LISTEN.format("127.0.0.1:9200"))
        assert refused.returncode == 1
        assert '[metrics] listen = "127.0.0.1:9200": Address already in use' in refused.stderr
        assert node.status()["generation"] == generation
        found = scrape(node)
        assert total(found, "backend_up", pool="four", backend=FARM4[2]) == 1
        assert total(found, "reloads_total", outcome="succeeded") == 1
        assert total(found, "reloads_total", outcome="failed") == 1
        assert total(found, "last_reload_successful") == 0
        # A backend that goes takes its series along.
        assert node.reload(fewer + LISTEN.format("")).returncode == 0
        assert not listens(node, ":9108")
        assert node.reload(fewer).returncode == 0
        labels = [labels for _, labels in scrape(node)]
        assert not [each for each in labels if ("backend", FARM4[2]) in each]


def test_health_is_told_as_it_is(tmp_path: Path) -> None:
    """One backend listens, the others refuse."""
    health = '[pool.health]\ntype = "tcp"\nvia = "direct"\nport = 8000\ninterval_ms = 100\n'
    before, _, behind = CONFIG.partition('[[pool]]\nname = "six"')
    services = behind[behind.index("[[service]]") :].replace('pool = "six"', 'pool = "four"')
    config = before + health + services
    up, *down = FARM4
    with running(tmp_path) as (stage, node):
        with inside(stage.farm, lambda: socket.create_server((up, 8000))):
            assert node.reload(config).returncode == 0
            node.until(lambda s: conditions(s) == ["up", "down", "down"], "verdicts")
            found = scrape(node)
        for backend, figure in ((up, 1), *((address, 0) for address in down)):
            labels = {"pool": "four", "backend": backend}
            assert total(found, "backend_up", **labels) == figure
            assert total(found, "backend_weight", **labels) == figure
            condition = "up" if figure else "down"
            assert total(found, "backend_condition", **labels, condition=condition) == 1
        passed = total(found, "probes_total", pool="four", outcome="passed")
        refused = total(found, "probes_total", pool="four", outcome="refused")
        assert passed >= 1
        assert refused >= 2
        probes = total(found, "probe_duration_seconds_count", pool="four")
        assert probes == total(found, "probes_total")
        assert 0 < total(found, "probe_duration_seconds_sum", pool="four") < probes


def conditions(status: dict[str, Any]) -> list[str]:
    return [backend["condition"] for backend in status["pools"][0]["backends"]]


def test_a_taken_port_keeps_the_node_from_starting(tmp_path: Path) -> None:
    with running(tmp_path) as (stage, first):
        other = tmp_path / "second"
        other.mkdir()
        second = Node(stage.node, other, CONFIG)
        assert second.process.wait(START_S) == 1
        text = second.log_file.read_text()
        assert f'lbfwd: [metrics] listen = "{METRICS}": Address already in use' in text
        assert total(scrape(first), "generation") == 1
