"""What a scrape says, read back with prometheus_client's own parser."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lbfwd.metrics.exporter import render
from lbfwd.metrics.reading import Reading
from lbfwd.supervisor.census import Flows
from lbfwd.supervisor.status import RingStatus
from tests.unit.metrics.values import reading, standing, worker

# Whose a series is, by labels that it has: the first that fits.
OWNERS = {
    "ring": {"worker", "interface"},
    "worker": {"worker"},
    "interface": {"interface"},
    "service": {"service"},
    "backend": {"pool", "backend"},
    "pool": {"pool"},
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(given: Reading) -> Samples:
    """By name and labels; a series that comes twice fails."""
    found: Samples = {}
    for family in text_string_to_metric_families(b"".join(render(given)).decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"lbfwd_{name}", frozenset(labels.items())]


def labelled(found: Samples, name: str) -> Iterator[dict[str, str]]:
    return (dict(labels) for sample, labels in found if sample == f"lbfwd_{name}")


@pytest.mark.parametrize(
    ("name", "labels", "wanted"),
    [
        ("generation", {}, 42),
        ("vip_announced", {"vip": "192.0.2.10"}, 1),
        ("vip_announced", {"vip": "2001:db8::10"}, 0),
        ("worker_packets_total", {"worker": "0"}, 1000),
        ("worker_frames_total", {"worker": "0"}, 999),
        ("worker_bursts_total", {"worker": "1"}, 100),
        ("worker_waits_total", {"worker": "1"}, 90),
        ("worker_sends_total", {"worker": "1"}, 95),
        ("worker_restarts_total", {"worker": "1"}, 3),
        ("worker_up", {"worker": "0"}, 1),
        ("worker_up", {"worker": "1"}, 0),
        ("worker_state", {"worker": "1", "state": "abandoned"}, 1),
        ("worker_info", {"worker": "1", "cpu": "3", "ring": "v2"}, 1),
        ("worker_heartbeat_age_seconds", {"worker": "0"}, 0.05),
        ("worker_flows", {"worker": "0"}, 5),
        ("worker_flows", {"worker": "1"}, 2),
        ("worker_flows_capacity", {"worker": "1"}, 1024),
        ("ring_packets_total", {"worker": "0", "interface": "eth0"}, 600),
        ("ring_dropped_packets_total", {"worker": "0", "interface": "eth0"}, 5),
        ("ring_freezes_total", {"worker": "0", "interface": "eth0"}, 1),
        ("interface_up", {"interface": "eth0"}, 1),
        ("interface_admits_all", {"interface": "eth0"}, 1),
        ("interface_mtu_bytes", {"interface": "eth0"}, 1500),
        ("interface_device_tx_dropped_packets_total", {"interface": "eth0"}, 8),
        ("interface_qdisc_tx_dropped_packets_total", {"interface": "eth0"}, 9),
        ("dropped_packets_total", {"reason": "fragment"}, 17),
        ("dropped_packets_total", {"reason": "not_ip"}, 0),
        ("events_total", {"event": "flow_new"}, 23),
        ("service_packets_total", {"service": "http"}, 24690),
        ("service_packets_total", {"service": "new"}, 0),
        ("service_flows", {"service": "http"}, 7),
        ("service_flows", {"service": "any"}, 0),
        ("service_fingerprint", {"service": "http"}, 0x00112233AABB),
        ("configuration_digest", {}, 0x0123456789AB),
        ("etcd_reachable", {}, 1),
        ("shared_configuration_revision", {}, 12),
        ("shared_configuration_accepted", {}, 0),
        ("service_fingerprint_info", {"service": "http", "fingerprint": "00112233aabbccdd"}, 1),
        ("backend_packets_total", {"pool": "web", "backend": "a"}, 12345),
        ("backend_bytes_total", {"pool": "web", "backend": "a"}, 67890),
        ("backend_flows", {"pool": "web", "backend": "a"}, 7),
        ("backend_flows", {"pool": "web", "backend": "b"}, 0),
        ("backend_weight", {"pool": "web", "backend": "a"}, 2),
        ("backend_weight", {"pool": "web", "backend": "b"}, 0),  # no path
        ("backend_weight", {"pool": "slow", "backend": "c"}, 0.5),  # 5 of 10 parts
        ("backend_condition", {"pool": "web", "backend": "b", "condition": "down"}, 1),
        ("backend_condition", {"pool": "slow", "backend": "c", "condition": "checking"}, 1),
        ("service_new_flows_total", {"service": "http"}, 7),
        ("backend_new_flows_total", {"pool": "web", "backend": "a"}, 6),
        ("probe_tunnel_up", {}, 1),
        ("probe_tunnel_packets_total", {}, 120),
        ("probe_tunnel_bytes_total", {}, 7200),
        ("probe_tunnel_dropped_packets_total", {"reason": "unsent"}, 2),
        ("probe_tunnel_mtu_holes", {}, 0),
        ("probe_tunnel_blocked_answers", {}, 1),
        ("probes_total", {"pool": "web", "outcome": "passed"}, 2),
        ("probes_total", {"pool": "web", "outcome": "timeout"}, 1),
        ("probe_duration_seconds_bucket", {"pool": "web", "le": "0.001"}, 1),
        ("probe_duration_seconds_bucket", {"pool": "web", "le": "0.0025"}, 1),
        ("probe_duration_seconds_bucket", {"pool": "web", "le": "0.005"}, 2),
        ("probe_duration_seconds_bucket", {"pool": "web", "le": "10.0"}, 2),
        ("probe_duration_seconds_bucket", {"pool": "web", "le": "+Inf"}, 3),
        ("probe_duration_seconds_count", {"pool": "web"}, 3),
        ("probe_duration_seconds_sum", {"pool": "web"}, 60.004),
        ("reloads_total", {"outcome": "refused"}, 0),
        ("last_reload_successful", {}, 1),
    ],
)
def test_a_reading_is_told(name: str, labels: dict[str, str], wanted: float) -> None:
    assert value(samples(reading()), name, **labels) == pytest.approx(wanted)


def test_a_service_says_what_it_is() -> None:
    described = {
        labels["service"]: labels for labels in labelled(samples(reading()), "service_info")
    }
    assert described["any"] == {
        "service": "any", "vip": "192.0.2.10", "protocol": "udp", "port": "any", "pool": "web",
        "affinity": "source",
    }  # fmt: skip
    assert described["http"]["port"] == "80"


def test_large_counters_lose_no_digit() -> None:
    assert (
        f'lbfwd_service_bytes_total{{service="http"}} {2**53 + 1}\n'
        in b"".join(render(reading())).decode()
    )


@pytest.mark.parametrize(
    ("condition", "up"),
    [("up", 1), ("starting", 1), ("drained", 1), ("down", 0), ("failed_open", 0), ("disabled", 0),
     ("checking", 0)],
)  # fmt: skip
def test_up_means_that_checks_pass(condition: str, up: int) -> None:
    given = replace(reading(), standings={("web", "a"): standing(condition)})  # type: ignore[arg-type]
    assert value(samples(given), "backend_up", pool="web", backend="a") == up


def test_every_backend_is_in_one_condition() -> None:
    found = list(labelled(samples(reading()), "backend_condition"))
    assert sorted((each["pool"], each["backend"]) for each in found) == [
        ("slow", "c"), ("web", "a"), ("web", "b"),
    ]  # fmt: skip


def test_while_a_ring_is_replaced_its_counters_do_not_go_back() -> None:
    old = RingStatus(interface="eth0", packets=600, drops=5, freezes=1)
    new = RingStatus(interface="eth0", packets=0, drops=0, freezes=0)
    for rings in ((old, new), (new, old)):
        found = samples(replace(reading(), workers=(worker(0, rings),)))
        assert value(found, "ring_packets_total", worker="0", interface="eth0") == 600


def test_before_the_first_generation_there_is_the_node() -> None:
    found = samples(replace(reading(), generation=0, forwarding=None, flows=Flows()))
    assert value(found, "generation") == 0
    assert value(found, "worker_flows_capacity", worker="0") == 1024
    assert not list(labelled(found, "backend_up"))


def test_the_supervisors_process_is_there() -> None:
    assert samples(reading())["process_open_fds", frozenset()] > 0


def test_promtool_finds_nothing_to_complain_of() -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is missing (Debian package prometheus)")
    check = ["promtool", "check", "metrics"]
    result = subprocess.run(
        check, input=b"".join(render(reading())), capture_output=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_registrations_are_counted_by_pool_and_state() -> None:
    found = samples(reading())
    assert list(labelled(found, "registrations")) == [{"pool": "web", "state": "active"}]
    assert value(found, "registrations", pool="web", state="active") == 1


def test_without_etcd_there_is_nothing_about_it() -> None:
    names = {name for name, _ in samples(replace(reading(), shared=None))}
    assert "lbfwd_configuration_digest" in names
    assert not [name for name in names if "etcd" in name or "shared" in name]


def test_the_document_lists_every_metric_with_its_type_and_labels() -> None:
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(lbfwd_\w+)` \| (\w+) \| ([\w, ]*)\|", text, re.MULTILINE)
    listed = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    assert len(listed) == len(rows)
    made = {}
    for family in text_string_to_metric_families(b"".join(render(reading())).decode()):
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        if name.startswith("lbfwd_"):
            made[name] = family.type, labels
    assert listed == made


def test_the_document_tells_how_many_series_there_are() -> None:
    text = " ".join((Path(__file__).parents[3] / "docs" / "metrics.md").read_text().split())
    (told,) = re.findall(r"There are (.*?) and some \d+ of the node\.", text)
    each = {
        whose: int(number) for number, whose in re.findall(r"(\d+)(?: series)? an? (\w+)", told)
    }
    there = {"ring": 1, "worker": 2, "interface": 1, "service": 3, "backend": 3, "pool": 1}
    names = [{name for name, _ in labels} for _, labels in samples(reading())]
    owners = (next((o for o, its in OWNERS.items() if its <= labels), "") for labels in names)
    found = Counter(filter(None, owners))
    found["pool"] -= 2  # its probes have had a second outcome, and one has registered
    assert found == {whose: number * there[whose] for whose, number in each.items()}
