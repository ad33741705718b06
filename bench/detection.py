"""How soon a dead server is out: from its death until the last worker forwards without it.

A real ``lbfwd run`` in a namespace checks servers in another one, a pool for each setting of
``interval_ms`` and ``fall``. In each round each pool loses a server by SIGKILL, at a random moment
between two probes. The end is when every worker has acknowledged the generation that came of it.

Needs root and nginx. ``python -m bench.detection [--rounds N] [--out DIRECTORY]``
"""

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import nginx
from bench.measure import figure
from bench.node_run import Lbfwd
from bench.probes import SMALL_NODE
from bench.reload_node import controlling
from bench.result import options, save
from bench.target import at_most
from lbfwd.demo.lab import Lab, LabError, eventually
from lbfwd.shared import Control

PORT = 8080
SURVIVOR = "10.0.0.10"
START_S = 60.0
LONGEST = 5.0  # times interval and fall
LOOK_S = 0.0005
POOL = """
[[pool]]
name = "{name}"
backends = [{{ name = "dies", address = "{address}" }}, {{ address = "{survivor}" }}]
[pool.health]
type = "http"
via = "direct"
port = {port}
interval_ms = {interval_ms}
timeout_ms = {interval_ms}
fall = {fall}
rise = 1
hold_down_s = 0
[[service]]
vip = "192.0.2.{number}"
protocol = "tcp"
port = 80
pool = "{name}"
"""
NGINX = nginx.template(
    """  server {{ listen {address}:{port}; location / {{ return 200 "well"; }} }}""",
    main=nginx.SINGLE,
    connections=64,
)


@dataclass(frozen=True)
class Setting:
    """Of one pool."""

    interval_ms: int
    fall: int

    @property
    def name(self) -> str:
        """Of the pool."""
        return f"{self.interval_ms}ms-fall{self.fall}"

    @property
    def product_s(self) -> float:
        """What detection is compared with."""
        return self.interval_ms * self.fall / 1000


SETTINGS = tuple(Setting(*pair) for pair in ((100, 2), (250, 3), (500, 3), (1000, 3), (2000, 3)))


def address_of(setting: Setting) -> str:
    """Return the address of the server that dies."""
    return f"10.0.0.{11 + SETTINGS.index(setting)}"


def config() -> str:
    """Return the node's configuration, TOML."""
    pools = (
        POOL.format(
            name=setting.name,
            address=address_of(setting),
            survivor=SURVIVOR,
            port=PORT,
            interval_ms=setting.interval_ms,
            fall=setting.fall,
            number=number,
        )
        for number, setting in enumerate(SETTINGS, 10)
    )
    return "".join((SMALL_NODE, *pools))


class Run:
    """A node that is ready, and its servers."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._root = directory
        node, self._farm = lab.host("node"), lab.host("farm")
        addresses = [SURVIVOR, *map(address_of, SETTINGS)]
        lab.link(node, "n0", ["10.0.0.1/24"], self._farm, "f0", [f"{a}/24" for a in addresses])
        self._servers = {address: self._serve(address) for address in addresses}
        self.lbfwd = Lbfwd(node, directory, config())
        eventually(self.lbfwd.has_come_up, START_S, "ready")

    def _serve(self, address: str) -> "subprocess.Popen[Any]":
        root = self._root / address
        root.mkdir(exist_ok=True)
        text = NGINX.format(root=root, address=address, port=PORT)
        process = nginx.start(self._farm, root, text)
        listening = f"{address}:{PORT}"
        eventually(lambda: listening in self._farm.run("ss", "-Hlnt"), START_S, "nginx")
        return process

    def lose(self, setting: Setting, control: Control) -> float:
        """Kill a setting's server; returns the seconds until no worker uses it any more.

        Afterwards it is back in service.
        """
        address = address_of(setting)
        time.sleep(random.uniform(0, setting.interval_ms / 1000))
        begun = time.monotonic()
        with self._acknowledged("backend_down", setting, control) as out:
            self._servers[address].kill()
        with self._acknowledged("backend_up", setting, control):
            self._servers[address] = self._serve(address)
        return out[0] - begun

    @contextmanager
    def _acknowledged(
        self, event: str, setting: Setting, control: Control
    ) -> Iterator[list[float]]:
        """Do what brings an event about, and wait for it.

        Gives a list that will hold when the worker acknowledged the generation after the event.
        """
        before, seen = self._logged(event, setting), control.slot(0).acknowledged
        when: list[float] = []
        yield when
        deadline = time.monotonic() + LONGEST * setting.product_s + 1
        while time.monotonic() < deadline:
            if (now := control.slot(0).acknowledged) > seen:
                at, seen = time.monotonic(), now
                if self._logged(event, setting) > before:  # it is logged before it is published
                    when.append(at)
                    return
            time.sleep(LOOK_S)
        raise LabError(f"{setting.name}: no generation after {event}")

    def _logged(self, event: str, setting: Setting) -> int:
        return sum(each["pool"] == setting.name for each in self.lbfwd.events(event))


@contextmanager
def running() -> Iterator[Run]:
    """Have a node and its servers for a while."""
    with tempfile.TemporaryDirectory() as place, Lab() as lab:
        yield Run(lab, Path(place))


def rounds(count: int) -> dict[str, list[float]]:
    """Measure all settings in turns; seconds by the setting's name."""
    found: dict[str, list[float]] = {setting.name: [] for setting in SETTINGS}
    with running() as run, controlling(run.lbfwd.runtime) as control:
        for number in range(count):
            for setting in SETTINGS:
                found[setting.name].append(run.lose(setting, control))
            print(f"  {number + 1}: {[round(s[-1], 3) for s in found.values()]}", flush=True)
    return found


def main() -> None:
    """Measure and save."""
    chosen = options(__doc__, rounds=11).parse_args()
    found = rounds(chosen.rounds)
    ratios = {s.name: [seconds / s.product_s for seconds in found[s.name]] for s in SETTINGS}
    rows = {
        f"{setting.interval_ms} ms, {setting.fall}": {
            "product_ms": 1000 * setting.product_s,
            "took_ms": figure([1000 * seconds for seconds in found[setting.name]]).plain(),
            "ratio": figure(ratios[setting.name]).plain(),
            "ratio_most": max(ratios[setting.name]),
        }
        for setting in SETTINGS
    }
    longest = [max(values) for values in zip(*ratios.values(), strict=True)]
    target = at_most("a dead server: longest time to be out / (interval * fall)", 1.2, longest)
    save("detection", chosen, rows, [target])


if __name__ == "__main__":
    main()
