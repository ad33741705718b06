"""``lbfwd demo`` as a user meets it: it works, it says so, it notices what is broken, it cleans up.

client ── router ── node, router ── a, b, c: all of it in namespaces that the demo makes itself.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lbfwd.demo.lab import eventually
from tests.topology.demo.ordinary import as_nobody
from tests.topology.demo.show import assert_nothing_left, checks, demo, traces

pytestmark = pytest.mark.topology

TRAFFIC_FLOWS = "Asking both virtual IPs"
CHECKS = 14
INSIDE = f"{sys.executable} -m lbfwd.demo --leash"


def enter(output: str) -> list[str]:
    """The command that the demo gives for a shell inside."""
    (line,) = re.findall(r"^ +(nsenter .*)$", output, re.M)
    return line.split()


def test_as_root_it_works_and_can_be_looked_around_in() -> None:
    before = traces()
    with demo("--stay") as show:
        show.wait_for("It stays up until Ctrl-C")
        inside = enter(show.output)
        who = subprocess.run(
            [*inside, "ip", "netns", "exec", "client", "curl", "-s", "http://[2001:db8::10]/"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert re.fullmatch(r"Hello from backend [abc]\.\n", who.stdout)
        status = show.output  # the summary so far
        show.press_ctrl_c()
        assert show.end() == 0
        found = checks(show.output)
        assert len(found) == CHECKS
        assert all(found.values()), show.output
        assert "All of it right" in status
        assert_nothing_left(show, before)


def test_as_an_ordinary_user_it_works() -> None:
    before = traces()
    with demo(wrap=as_nobody(tun_mode=0o666)) as show:
        assert show.end() == 0, show.output
        assert "as an ordinary user" in show.output
        found = checks(show.output)
        assert len(found) == CHECKS
        assert all(found.values()), show.output
        assert_nothing_left(show, before)


def test_a_device_that_the_user_may_not_open_is_named() -> None:
    with demo(wrap=as_nobody(tun_mode=0o600)) as show:
        assert show.end() == 1
        assert "/dev/net/tun: Permission denied" in show.output
        assert "run as root" in show.output


# A shell script starts commands in the background with SIGINT ignored.
IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param((), id="foreground"),
        pytest.param(IN_BACKGROUND, id="background", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_half_way_leaves_nothing(wrap: Sequence[str]) -> None:
    before = traces()
    with demo(wrap=wrap) as show:
        show.wait_for(TRAFFIC_FLOWS)
        assert len(show.processes()) > 8  # unshare, demo, node, workers, three backends, client
        show.press_ctrl_c()
        assert show.end() == 130
        assert "stopped half-way" in show.output
        assert_nothing_left(show, before)


def test_killed_half_way_it_leaves_nothing() -> None:
    before = traces()
    with demo() as show:
        show.wait_for(TRAFFIC_FLOWS)
        show.process.send_signal(signal.SIGKILL)
        assert show.end() == -signal.SIGKILL
        assert_nothing_left(show, before)


@pytest.mark.slow
def test_a_broken_backend_is_noticed() -> None:
    before = traces()
    with demo() as show:
        show.wait_for(TRAFFIC_FLOWS)
        (server,) = (p for p, c in show.processes().items() if c.endswith("lbfwd.demo.server c"))
        os.kill(server, signal.SIGKILL)
        assert show.end() == 1
        found = checks(show.output)
        assert len(found) == CHECKS
        assert not found["every request was answered"]
        assert not found["equal shares, all three"]
        assert found["every packet is accounted for"]  # the node did its part
        assert_nothing_left(show, before)


def test_an_lbfwd_that_does_not_start_is_told_with_its_reason(tmp_path: Path) -> None:
    before = traces()
    broken = tmp_path / "nft"
    # Good enough for the backends, whose tables are of the family inet.
    nft = shutil.which("nft")
    broken.write_text(
        f'#!/bin/sh\ntext=$(cat)\ncase "$text" in *netdev*) echo sabotage >&2; exit 1;; esac\n'
        f'printf "%s\\n" "$text" | {nft} "$@"\n'
    )
    broken.chmod(0o755)
    with demo(path=f"{tmp_path}:{os.environ['PATH']}") as show:
        assert show.end() == 1
        assert "lbfwd run" in show.output
        assert "sabotage" in show.output
        assert_nothing_left(show, before)


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    before = traces()
    with demo("--stay") as show:
        show.wait_for(TRAFFIC_FLOWS)
        (inside,) = (p for p, c in show.processes().items() if c.startswith(INSIDE))
        os.kill(inside, signal.SIGSTOP)  # so that it cannot obey the first signal
        held = show.sockets()
        show.press_ctrl_c()
        eventually(lambda: show.sockets() < held, 5.0, "the first signal lets the leash go")
        show.press_ctrl_c()
        assert show.end() != 0
        assert_nothing_left(show, before)
