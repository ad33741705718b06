"""The backend's unit with `join`, in a clean Debian with systemd, as an operator sets it up.

client ── router ── node, and the Debian as backend a (tests/topology/fleet/registration_site.py)
"""

import shutil
from collections.abc import Iterator

import pytest

from lbfwd import __version__
from lbfwd.demo.lab import eventually
from tests.topology.deploy import debian
from tests.topology.deploy.debian import Machine
from tests.topology.deploy.test_package import build
from tests.topology.fleet.registration_site import (
    HOLD_S,
    LEASE_S,
    TOKEN,
    URL,
    Site,
    registration_site,
)

pytestmark = [pytest.mark.topology, pytest.mark.slow]

UNIT = "lbfwd-backend"
WAIT_S = 30.0
# What docs/registration.md shows, with the names of this network.
OPTIONS = (
    f"--pool web --name a --lease {LEASE_S} --token-file /etc/lbfwd/web.token"
    f" --ca-file /etc/lbfwd/ca.pem --node {URL} --vip 192.0.2.10 --node 10.0.0.2"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Machine]]:
    """A node at which backends can register, and a Debian with the package and its two files."""
    debian.tools()
    package = build(tmp_path_factory.mktemp("deb"), __version__)
    root = debian.unpack(tmp_path_factory.mktemp("debian"))
    shutil.copy(package, root / "root/lbfwd.deb")
    directory = tmp_path_factory.mktemp("site")
    with (
        registration_site(directory, "https") as site,
        debian.booted(site.network.backends["a"], root) as machine,
    ):
        machine.run("dpkg", "--install", "/root/lbfwd.deb")
        shutil.copy(directory / "cert.pem", root / "etc/lbfwd/ca.pem")
        (root / "etc/lbfwd/backend.env").write_text(f'LBFWD_BACKEND="join {OPTIONS}"\n')
        (root / "etc/lbfwd/web.token").touch(mode=0o600)
        (root / "etc/lbfwd/web.token").write_text(TOKEN)
        yield site, machine
    shutil.rmtree(root)


@pytest.fixture
def joined(place: tuple[Site, Machine]) -> Iterator[tuple[Site, Machine]]:
    """The unit has started, and the backend serves; its log is shown with a failure."""
    site, machine = place
    machine.run("systemctl", "start", UNIT)
    try:
        site.until("a", "up", WAIT_S)
        yield place
    finally:
        machine.run("systemctl", "stop", UNIT)
        print(machine.journal(UNIT)[-4000:])  # noqa: T201 - pytest shows it with a failure
    site.until("a", "", HOLD_S + WAIT_S)


def test_the_unit_joins_and_can_be_talked_to(joined: tuple[Site, Machine]) -> None:
    site, machine = joined
    assert machine.show(UNIT, "ActiveState") == "active"
    assert site.names(4) == {"a"}
    shown = machine.run("lbfwd", "backend", "status").splitlines()
    assert shown[0] == "web/a 10.0.1.2 weight 1: active"
    assert shown[1].strip() == "lb1: active"
    machine.run("lbfwd", "backend", "pause")
    site.until("a", "paused")
    machine.run("lbfwd", "backend", "resume")
    site.until("a", "up")


def test_stopping_waits_for_live_connections_and_takes_everything_back(
    joined: tuple[Site, Machine],
) -> None:
    site, machine = joined
    download = site.download("file")
    eventually(lambda: site.backend("a")["flows"] > 0, WAIT_S, "a serves the download")
    machine.run("systemctl", "stop", UNIT)
    assert download.is_whole(1.0), "it was over before"
    assert machine.show(UNIT, "Result") == "success"
    assert "192.0.2.10" not in machine.run("ip", "-br", "address", "show", "lo")
    assert machine.run("nft", "list", "ruleset") == ""


def test_killed_it_is_started_again_and_serves(joined: tuple[Site, Machine]) -> None:
    site, machine = joined
    pid = machine.show(UNIT, "MainPID")
    machine.run("kill", "-KILL", pid)
    eventually(
        lambda: (
            machine.show(UNIT, "ActiveState") == "active"
            and machine.show(UNIT, "MainPID") not in ("0", pid)
        ),
        WAIT_S,
        "another process",
    )
    site.until("a", "up", WAIT_S)
    eventually(lambda: site.names(4) == {"a"}, WAIT_S, "it serves")


def test_who_has_left_is_not_started_again(joined: tuple[Site, Machine]) -> None:
    site, machine = joined
    assert machine.run("lbfwd", "backend", "leave", "--drain", "5") == "left: no live flow\n"
    eventually(lambda: machine.show(UNIT, "ActiveState") == "inactive", WAIT_S, "it has ended")
    assert machine.show(UNIT, "Result") == "success"
    site.until("a", "", HOLD_S + WAIT_S)


def test_who_is_refused_tells_why_in_the_journal(place: tuple[Site, Machine]) -> None:
    _site, machine = place
    token = machine.root / "etc/lbfwd/web.token"
    token.chmod(0o644)
    try:
        machine.run("systemctl", "start", UNIT)
        rule = "group and others must have no access (mode 0644): chmod 0600"
        told = f"lbfwd backend: --token-file /etc/lbfwd/web.token: {rule}"
        eventually(lambda: told in machine.journal(UNIT), WAIT_S, "the reason is told")
    finally:
        token.chmod(0o600)
        machine.run("systemctl", "stop", UNIT)
        machine.run("systemctl", "reset-failed", UNIT, check=False)
