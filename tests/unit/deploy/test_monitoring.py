"""Alert rules and dashboard: promtool reads them, and every metric in them is one of lbfwd's."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from lbfwd.metrics.exporter import render
from tests.unit.metrics.values import reading

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy/lbfwd.rules.yml"
RULES_TEST = Path(__file__).with_name("rules_test.yml")
DASHBOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
PANELS = DASHBOARD["panels"]
# What Grafana puts in for its variables.
VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$instance": ".*", "$service": ".*",
             "$pool": ".*"}  # fmt: skip
METRIC = re.compile(r"\blbfwd_\w+")


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is missing (Debian package prometheus)")
    return found


def must(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def metrics() -> set[str]:
    """The names of samples: those that are exported, and those that the document names."""
    told = re.findall(r"^# TYPE (\w+) ", b"".join(render(reading())).decode(), re.M)
    written = re.findall(r"^\| `(lbfwd_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M)
    return {*told, *written, *(f"{name}_bucket" for name in told)}


def expressions() -> Iterator[str]:
    """Those of the dashboard, as Grafana sends them."""
    asked = [t["expr"] for panel in PANELS for t in panel.get("targets", ())]
    asked += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    for expression in asked:
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)  # noqa: PLW2901
        assert "$" not in expression
        yield expression


def test_the_rules_are_good(promtool: str) -> None:
    must(promtool, "check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_only_then(promtool: str, tmp_path: Path) -> None:
    for path in (RULES, RULES_TEST):
        shutil.copy(path, tmp_path)
    must(promtool, "test", "rules", str(tmp_path / RULES_TEST.name))
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    fired = re.findall(r'labels: .\{alertname="(\w+)"\}', RULES_TEST.read_text())
    assert sorted(set(alerts)) == sorted(set(fired))


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    alerts = RULES.read_text().split("- alert: ")[1:]
    for alert in alerts:
        assert re.search(r"severity: (page|ticket) \}", alert), alert
        assert "summary: " in alert, alert
        assert "description: " in alert, alert


def test_the_alerts_of_the_fleet_are_those_of_its_page() -> None:
    page = (ROOT / "docs/fleet.md").read_text()
    told = re.findall(r"^- alert: (\w+)\n  expr: (.*)$", page, re.M)
    ours = dict(re.findall(r"- alert: (\w+)\n +expr: (.*)$", RULES.read_text(), re.M))
    assert told
    assert [(name, ours.get(name)) for name, _expression in told] == told


def test_the_dashboards_expressions_are_good(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"x{n}", "expr": e} for n, e in enumerate(expressions())]
    path = tmp_path / "dashboard.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    must(promtool, "check", "rules", str(path))


@pytest.mark.parametrize("name", ["deploy/lbfwd.rules.yml", "deploy/grafana.json"])
def test_every_metric_exists(name: str) -> None:
    used = set(METRIC.findall((ROOT / name).read_text()))
    assert len(used) > 10
    assert used - metrics() == set()


def test_panels_are_told_apart_and_cover_each_other_nowhere() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)


def test_panels_ask_the_datasource_that_is_chosen() -> None:
    def sources(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "datasource" in value and isinstance(value["datasource"], dict):
                yield value["datasource"]["uid"]
            for each in value.values():
                yield from sources(each)
        elif isinstance(value, list):
            for each in value:
                yield from sources(each)

    assert set(sources(DASHBOARD)) == {"${datasource}"}
