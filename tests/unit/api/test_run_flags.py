"""Every ``[workers]`` key is a flag of ``lbfwd run``."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lbfwd.cli import run
from lbfwd.config import Workers

FLAGS = {
    "cpus": ("--cpus", "2,3", (2, 3)),
    "ring": ("--ring", "v2", "v2"),
    "rx_ring_mib": ("--rx-ring-mib", "16", 16),
    "rx_block_kib": ("--rx-block-kib", "256", 256),
    "rx_retire_ms": ("--rx-retire-ms", "2", 2),
    "busy_poll_us": ("--busy-poll-us", "50", 50),
    "tx_ring_frames": ("--tx-ring-frames", "1024", 1024),
    "qdisc_bypass": ("--qdisc-bypass", None, True),
    "fanout": ("--fanout", "cpu", "cpu"),
    "flows": ("--flows", "4096", 4096),
}


def parse(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    run.configure(parser)
    return run.overrides(parser.parse_args(arguments))


def test_every_key_is_here() -> None:
    assert FLAGS.keys() == Workers.model_fields.keys()


@pytest.mark.parametrize("key", FLAGS)
def test_a_flag_overrides_its_key(key: str) -> None:
    flag, text, value = FLAGS[key]
    assert parse(flag, *([text] if text else [])) == {key: value}


def test_without_flags_the_file_decides() -> None:
    assert parse() == {}


def test_a_switch_can_be_turned_off() -> None:
    assert parse("--no-qdisc-bypass") == {"qdisc_bypass": False}


@pytest.mark.parametrize(
    "arguments", [["--cpus", "a"], ["--cpus", ""], ["--ring", "v4"], ["--flows", "many"]]
)
def test_what_is_no_value_is_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(*arguments)
    assert end.value.code == 2


def test_a_run_without_capabilities_says_which_is_missing(tmp_path: Path) -> None:
    """In a user of its own without rights, or as root with an empty bounding set."""
    bare = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-all"]
    command = [*(bare if os.geteuid() == 0 else []), sys.executable, "-m", "lbfwd.cli.main"]
    done = subprocess.run(
        [*command, "run", "-c", str(tmp_path / "none"), "--runtime-dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "No permission: CAP_NET_ADMIN and CAP_NET_RAW missing" in done.stderr
    assert not (tmp_path / "run").exists()
