"""The Debian package in a clean Debian with systemd: installed, run, upgraded, removed.

The machine is the node of tests/topology/node/stage.py's picture.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lbfwd import __version__
from lbfwd.demo.lab import Lab, eventually
from tests.topology.deploy import debian
from tests.topology.deploy.debian import Machine
from tests.topology.node.stage import CONFIG, VIP4, Stage
from tests.topology.node.test_oracle import is_gre
from tests.topology.node.wires import Sender, frames

pytestmark = [pytest.mark.topology, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
NOT_SOURCE = shutil.ignore_patterns(
    ".*cache", ".git", ".venv", ".hypothesis", "__pycache__", "build", "dist", "*.so", "*.egg-info"
)
NEXT = f"{__version__}+next"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """This version and another one, as `make deb` builds them."""
    debian.tools()
    return {v: build(tmp_path_factory.mktemp("deb"), v) for v in (__version__, NEXT)}


def build(place: Path, version: str) -> Path:
    source = place / "source"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    module = source / "lbfwd/__init__.py"
    module.write_text(module.read_text().replace(f'"{__version__}"', f'"{version}"'))
    must(sys.executable, "-m", "build", "--sdist", str(source))
    must(str(source / "deploy/debian/build.sh"))
    (package,) = (source / "dist").glob("*.deb")
    return package


def must(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def place(
    packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, Machine]]:
    """The stage, and its node: a Debian in which the package is installed and configured."""
    root = debian.unpack(tmp_path_factory.mktemp("debian"))
    for version, package in packages.items():
        shutil.copy(package, root / f"root/{version}.deb")
    with Lab() as lab:
        stage = Stage(lab)
        with stage.sockets, debian.booted(stage.node, root) as machine:
            machine.run("dpkg", "--install", f"/root/{__version__}.deb")
            config = root / "etc/lbfwd/lbfwd.toml"
            config.write_text(CONFIG)
            config.chmod(0o600)
            yield stage, machine
    shutil.rmtree(root)


@pytest.fixture
def node(place: tuple[Stage, Machine]) -> Iterator[Machine]:
    """The machine with lbfwd started; afterwards it is stopped, and its log shown."""
    _stage, machine = place
    machine.run("systemctl", "start", "lbfwd")
    yield machine
    with contextlib.suppress(AssertionError):
        machine.run("systemctl", "stop", "lbfwd")
        machine.run("systemctl", "kill", "lbfwd")
    print(machine.journal("lbfwd")[-4000:])  # noqa: T201 - pytest shows it with a failure


@pytest.fixture
def sender(place: tuple[Stage, Machine]) -> Sender:
    """Sends packets of a flow to a VIP."""
    return flow(place)


@pytest.fixture
def later(place: tuple[Stage, Machine]) -> Sender:
    """Sends packets of the same flow."""
    return flow(place)


def flow(place: tuple[Stage, Machine]) -> Sender:
    stage, _machine = place
    destination = stage.mac(stage.node, "n0")
    frame = bytes(
        Ether(dst=destination, src=stage.mac(stage.client, "c0"))
        / IP(src="198.51.100.2", dst=VIP4) / UDP(sport=4321, dport=53) / bytes(32)
    )  # fmt: skip
    return Sender(stage.tap(stage.client, "c0"), [frame], rate=500)


def encapsulated(place: tuple[Stage, Machine], sender: Sender) -> list[bytes]:
    """What has come of the sender's packets to the backends, until nothing more comes."""
    stage, _machine = place
    with stage.tap(stage.farm, "f0") as sink, sender:
        eventually(lambda: sender.sent >= 50, WAIT_S, "sent")
        sender.stop()
        return [frame for frame in frames(sink) if is_gre(frame)]


def main_pid(machine: Machine) -> int:
    return int(machine.show("lbfwd", "MainPID"))


def workers(machine: Machine) -> list[int]:
    text = machine.run("pgrep", "--full", "--", "spawn_main", check=False)
    return [int(word) for word in text.split()]


def replaced(machine: Machine, pid: int) -> None:
    """Wait until another supervisor has told that it is ready."""
    eventually(
        lambda: machine.show("lbfwd", "ActiveState") == "active" and main_pid(machine) != pid,
        WAIT_S,
        "another supervisor",
    )


def test_installing_starts_nothing(place: tuple[Stage, Machine]) -> None:
    _stage, machine = place
    assert machine.run("lbfwd", "--version") == f"lbfwd {__version__}\n"
    assert machine.run("dpkg", "--verify", "lbfwd") == ""
    assert machine.show("lbfwd", "UnitFileState") == "disabled"
    assert machine.show("lbfwd", "ActiveState") == "inactive"
    assert "lbfwd" in machine.run("getent", "group", "lbfwd")
    machine.run("lbfwd", "check", "/etc/lbfwd/lbfwd.toml")


@pytest.mark.parametrize("unit", ["lbfwd", "lbfwd-backend", "lbfwd-tune"])
def test_the_units_are_good_where_they_are_installed(
    place: tuple[Stage, Machine], unit: str
) -> None:
    _stage, machine = place
    done = machine.attempt("systemd-analyze", "verify", f"/lib/systemd/system/{unit}.service")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_forwards(place: tuple[Stage, Machine], node: Machine, sender: Sender) -> None:
    assert node.show("lbfwd", "StatusText") == "2 of 2 workers forward, generation 1"
    assert len(encapsulated(place, sender)) == sender.sent


def test_reload_is_told_and_a_bad_file_changes_nothing(node: Machine) -> None:
    pid, config = main_pid(node), node.root / "etc/lbfwd/lbfwd.toml"
    config.write_text(CONFIG.replace("table_size = 251", "table_size = 509", 1))
    node.run("systemctl", "reload", "lbfwd")
    config.write_text("no configuration")
    assert node.attempt("systemctl", "reload", "lbfwd").returncode != 0
    config.write_text(CONFIG)
    node.run("systemctl", "reload", "lbfwd")
    assert node.show("lbfwd", "ActiveState") == "active"
    assert main_pid(node) == pid


def test_probes_through_the_tunnel_may_have_what_they_need(node: Machine) -> None:
    config = node.root / "etc/lbfwd/lbfwd.toml"
    health = 'health = { type = "tcp", port = 80 }\n'
    config.write_text(CONFIG.replace("table_size = 251\n", f"table_size = 251\n{health}", 1))
    node.run("systemctl", "reload", "lbfwd")
    assert "lbfwd-probe" in node.run("ip", "-br", "link")
    config.write_text(CONFIG)
    node.run("systemctl", "reload", "lbfwd")


def test_workers_forward_on_when_their_supervisor_dies(
    place: tuple[Stage, Machine], node: Machine, sender: Sender
) -> None:
    pid, old = main_pid(node), workers(node)
    node.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "lbfwd")
    eventually(lambda: node.show("lbfwd", "MainPID") == "0", WAIT_S, "it has died")
    assert len(encapsulated(place, sender)) == sender.sent  # within RestartSec, or after it
    replaced(node, pid)
    eventually(lambda: not set(old) & set(workers(node)), WAIT_S, "the orphans are gone")
    assert "orphan_stopped" in node.journal("lbfwd")


def test_a_supervisor_that_hangs_is_replaced(node: Machine) -> None:
    drop_in = "/run/systemd/system/lbfwd.service.d"
    text = r"[Service]\nWatchdogSec=2\n"
    node.run("systemctl", "stop", "lbfwd")
    node.run("mkdir", "-p", drop_in)
    node.run("sh", "-c", f"printf '{text}' > {drop_in}/short.conf")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "start", "lbfwd")
    pid = main_pid(node)
    node.run("kill", "-STOP", str(pid))
    replaced(node, pid)
    assert "Watchdog timeout" in node.journal("lbfwd")
    node.run("rm", "-r", drop_in)
    node.run("systemctl", "daemon-reload")


def test_stopping_leaves_nothing(place: tuple[Stage, Machine], node: Machine) -> None:
    node.run("systemctl", "stop", "lbfwd")
    assert node.show("lbfwd", "Result") == "success"
    assert workers(node) == []
    assert node.run("nft", "list", "ruleset") == ""


def test_the_backend_unit(place: tuple[Stage, Machine]) -> None:
    _stage, machine = place
    (machine.root / "etc/lbfwd/backend.env").write_text(
        'LBFWD_BACKEND="--vip 192.0.2.20 --vip 2001:db8::20 --node 10.0.0.12 --node fd00::12"\n'
    )
    machine.run("systemctl", "start", "lbfwd-backend")
    assert machine.show("lbfwd-backend", "ActiveState") == "active"
    assert "192.0.2.20/32" in machine.run("ip", "-br", "address", "show", "lo")
    machine.run("systemctl", "stop", "lbfwd-backend")
    assert machine.show("lbfwd-backend", "Result") == "success"
    assert "192.0.2.20" not in machine.run("ip", "-br", "address", "show", "lo")


def test_the_tune_unit(place: tuple[Stage, Machine]) -> None:
    _stage, machine = place
    machine.run("systemctl", "start", "lbfwd-tune")
    assert machine.show("lbfwd-tune", "Result") == "success"
    journal = machine.journal("lbfwd-tune")
    assert "0 refused" in journal or "all is as it should be" in journal


def test_an_upgrade_interrupts_nothing(
    place: tuple[Stage, Machine], node: Machine, sender: Sender, later: Sender
) -> None:
    stage, _machine = place
    pid, old = main_pid(node), workers(node)
    with stage.tap(stage.farm, "f0") as sink:
        with sender:
            node.run("dpkg", "--install", f"/root/{NEXT}.deb")
        sender.stop()
        got = [frame for frame in frames(sink) if is_gre(frame)]
    assert len(got) == sender.sent
    (backend,) = {Ether(frame)[IPv6].dst for frame in got}
    assert (main_pid(node), workers(node)) == (pid, old)
    assert node.run("lbfwd", "--version") == f"lbfwd {NEXT}\n"
    assert version_of(node) == __version__

    # A worker that dies now gets a successor of the version that the supervisor has.
    node.run("kill", "-KILL", str(old[0]))
    eventually(lambda: len(set(workers(node)) - set(old)) == 1, WAIT_S, "a successor")
    eventually(lambda: "2 of 2" in node.show("lbfwd", "StatusText"), WAIT_S, "it forwards")
    (successor,) = set(workers(node)) - set(old)
    command = node.run("cat", f"/proc/{successor}/cmdline")
    assert command.startswith(f"/usr/lib/lbfwd/{__version__}/")

    node.run("systemctl", "restart", "lbfwd")
    assert version_of(node) == NEXT
    # The flow table has gone with the old workers; the Maglev table leads the flow there, too.
    assert {Ether(frame)[IPv6].dst for frame in encapsulated(place, later)} == {backend}
    node.run("dpkg", "--install", f"/root/{NEXT}.deb")
    assert node.run("ls", "/usr/lib/lbfwd").split() == [NEXT]


def version_of(machine: Machine) -> str:
    """The version that runs."""
    return str(json.loads(machine.run("lbfwd", "status", "--json"))["version"])


def test_it_goes_as_it_came(place: tuple[Stage, Machine]) -> None:
    _stage, machine = place
    machine.run("systemctl", "start", "lbfwd")
    machine.run("dpkg", "--purge", "lbfwd")
    assert workers(machine) == []
    assert machine.attempt("ls", "/usr/lib/lbfwd", "/usr/bin/lbfwd").stdout == ""
    assert machine.run("ls", "/etc/lbfwd").split() == ["backend.env", "lbfwd.toml"]
