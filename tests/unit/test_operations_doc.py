"""docs/operations.md and docs/migration.md speak of things that there are.

What stands in backticks and looks like a name is an event, a metric, an alert, a reason for drops,
an event on the packets' way, a probe's outcome, a key of the configuration, or a doctor's check.
"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from lbfwd.config.model import known_keys, tables_with
from lbfwd.health.outcome import Name
from tests.unit.test_events_doc import all_events
from tests.unit.test_house import drop_reasons

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["operations.md", "migration.md"]
METRICS = re.findall(r"^\| `(lbfwd_\w+)` \|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
ALERTS = re.findall(r"alert: (\w+)", (DOCS.parent / "deploy" / "lbfwd.rules.yml").read_text())
CHECKS = re.findall(r"^\| `([\w ]+)` \|", (DOCS / "doctor.md").read_text(), re.MULTILINE)
COUNTED = re.findall(
    r"`(\w+)`", (DOCS / "metrics.md").read_text().split("\nEvents: ")[1].split("\n\n")[0]
)
# keepalived's words, values, and names of the kernel's.
OTHERS = {"fail_open", "virtual_server", "connect_timeout", "delay_loop", "inhibit_on_failure",
          "lb_algo", "real_server", "sorry_server", "persistence_timeout"}  # fmt: skip


def quoted(page: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", (DOCS / page).read_text()))


@pytest.mark.parametrize("page", PAGES)
def test_metrics_and_alerts_are_there(page: str) -> None:
    named = {re.sub(r"\{.*", "", text).split()[0] for text in quoted(page)}
    assert {name for name in named if name.startswith("lbfwd_")} <= set(METRICS)
    assert {name for name in named if re.fullmatch(r"Lbfwd\w+", name)} <= set(ALERTS)


def test_events_on_the_way_are_there() -> None:
    assert set(re.findall(r'event="(\w+)"', (DOCS / "operations.md").read_text())) <= set(COUNTED)


@pytest.mark.parametrize("page", PAGES)
def test_other_names_are_there(page: str) -> None:
    names = {t for t in quoted(page) if re.fullmatch(r"[a-z]+(_[a-z]+)+", t)}
    names = {name for name in names if not name.startswith("lbfwd_")}
    known = {*all_events(), *drop_reasons(), *COUNTED, *CHECKS, *OTHERS, *known_keys()}
    known |= set(get_args(Name))
    assert {name for name in names if name not in known and not tables_with(name)} == set()


def test_the_pages_say_what_happens_on_every_alert() -> None:
    assert set(ALERTS) - quoted("operations.md") == set()


def test_what_reads_the_journal_passes_over_systemds_own_lines() -> None:
    """`journalctl -u` has them among those of the unit."""
    if shutil.which("jq") is None:
        pytest.skip("jq is missing (Debian package jq)")
    journal = "Starting lbfwd.service - a layer-4 load balancer...\n" + "".join(
        json.dumps({"level": level, "event": level}) + "\n" for level in ("info", "error")
    )
    (line,) = re.findall(r"^journalctl .*\| (jq .*)$", (DOCS / "operations.md").read_text(), re.M)
    done = subprocess.run(
        shlex.split(line), input=journal, capture_output=True, text=True, check=True
    )
    assert [json.loads(found)["event"] for found in done.stdout.splitlines()] == ["error"]
