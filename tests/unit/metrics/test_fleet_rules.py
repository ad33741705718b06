"""The alerts of docs/fleet.md do what the page says: judged by promtool."""

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NEIGHBOURS = 2**48 - 1, 2**48 - 2  # 48 bits that differ in the last: a sample holds them

TEST = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: 'lbfwd_build_info{instance="a"}', values: '1x10'}
  - {series: 'lbfwd_build_info{instance="b"}', values: '1x10'}
  - {series: 'lbfwd_service_fingerprint{service="web",instance="a"}', values: '%dx10'}
  - {series: 'lbfwd_service_fingerprint{service="web",instance="b"}', values: '%dx10'}
  - {series: 'lbfwd_service_fingerprint{service="same",instance="a"}', values: '7x10'}
  - {series: 'lbfwd_service_fingerprint{service="same",instance="b"}', values: '7x10'}
  - {series: 'lbfwd_service_fingerprint{service="dns",instance="a"}', values: '5x10'}
  - {series: 'lbfwd_configuration_digest{instance="a"}', values: '1x10'}
  - {series: 'lbfwd_configuration_digest{instance="b"}', values: '2x10'}
  - {series: 'lbfwd_shared_configuration_accepted{instance="a"}', values: '0x10'}
  - {series: 'lbfwd_shared_configuration_accepted{instance="b"}', values: '1x10'}
  - {series: 'lbfwd_etcd_reachable{instance="a"}', values: '1x10'}
  - {series: 'lbfwd_etcd_reachable{instance="b"}', values: '0x10'}
  alert_rule_test:
"""
FIRES = {
    "LbfwdServiceDiffers": "{service: web}",
    "LbfwdServiceMissing": "{service: dns}",
    "LbfwdConfigurationDiffers": "{}",
    "LbfwdPushRefused": "{instance: a}",
    "LbfwdEtcdLost": "{instance: b}",
}


def test_the_alerts_of_the_page_fire_for_what_differs(tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("needs promtool (Debian: prometheus)")
    (rules,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/fleet.md").read_text(), re.S)
    assert set(re.findall(r"alert: (\w+)", rules)) == set(FIRES)
    group = "groups:\n- name: fleet\n  rules:\n"
    (tmp_path / "rules.yml").write_text(group + textwrap.indent(rules, "  "))
    expected = "".join(
        f"  - {{eval_time: 6m, alertname: {name}, exp_alerts: [{{exp_labels: {labels}}}]}}\n"
        for name, labels in FIRES.items()
    )
    (tmp_path / "test.yml").write_text(TEST % NEIGHBOURS + expected)
    argv = ["promtool", "test", "rules", "test.yml"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
