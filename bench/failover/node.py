"""A node of the fleet: lbfwd and a routing daemon, in a namespace."""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bench.failover.daemons import Bird, Detection
from bench.failover.text import VIPS, lbfwd
from lbfwd.demo.lab import Host, eventually

FIRST = 10  # lb1 is 203.0.113.10
START_S = 30.0
STOP_S = 60.0


class FleetNode:
    """lbN. Its files survive it, as a machine's disk does."""

    def __init__(self, host: Host, number: int, directory: Path, detection: Detection) -> None:
        """Start nothing yet. ``number``: from 1."""
        self.host, self.name = host, f"lb{number}"
        self.directory = directory / self.name
        self.directory.mkdir()
        self.addresses = (f"203.0.113.{FIRST + number - 1}", f"2001:db8:1::{FIRST + number - 1}")
        self._config = self.directory / "lbfwd.toml"
        self._config.write_text(lbfwd(self.name, self.addresses[0], number % 2), encoding="utf-8")
        self._pairs = [("203.0.113.10", self.addresses[0]), *detection.bird()]
        self._lives = 0

    @property
    def log(self) -> Path:
        """The log of lbfwd's present life."""
        return self.directory / f"log{self._lives}"

    def start_routing(self) -> None:
        """Start BIRD with deploy/bird.conf."""
        self.bird = Bird(self.host, "bird.conf", self.directory, self._pairs)

    def start(self) -> None:
        """Start lbfwd, and wait for nothing."""
        self._lives += 1
        run = self._command("run", "-c", str(self._config))
        with self.log.open("a") as log:
            self.lbfwd = self.host.start(
                *run, "--state-dir", str(self.directory / "state"), stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Wait until it announces both VIPs. Raises LabError."""
        eventually(
            lambda: len(self.events("vip_announced")) >= len(VIPS) or self.lbfwd.poll() is not None,
            START_S,
            f"{self.name} announces its VIPs",
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what the log of this life has of an event."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if f'"event": "{name}"' in line]

    def status(self) -> dict[str, Any]:
        """Return what ``lbfwd status --json`` says."""
        result: dict[str, Any] = json.loads(self.host.run(*self._command("status", "--json")))
        return result

    def stop(self) -> int:
        """Stop lbfwd politely; the routing daemon goes on. Returns lbfwd's exit status."""
        self.lbfwd.terminate()
        return self.lbfwd.wait(STOP_S)

    def hurry(self) -> None:
        """Have lbfwd stop without waiting until traffic has moved away; waits for nothing."""
        for _twice in range(2):
            self.lbfwd.terminate()

    def kill(self) -> None:
        """Take the link down and SIGKILL every process of the node."""
        self.host.run("ip", "link", "set", "eth0", "down")
        for pid in self.host.run("ip", "netns", "pids", self.host.netns).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.lbfwd.wait()

    def plug(self) -> None:
        """Set the link up, with its addresses and routes."""
        self.host.run("ip", "link", "set", "eth0", "up")
        for address, length in zip(self.addresses, (24, 64), strict=True):
            self.host.run("ip", "address", "replace", f"{address}/{length}", "dev", "eth0")
        for router in ("203.0.113.1", "2001:db8:1::1"):
            self.host.run("ip", "route", "replace", "default", "via", router)

    def forget(self) -> None:
        """Take away what a reboot would: routes of VIPs and the runtime directory's contents."""
        self.host.run(*self._command("withdraw", "--force"))

    def _command(self, verb: str, *arguments: str) -> list[str]:
        runtime = str(self.directory / "run")
        return [sys.executable, "-m", "lbfwd.cli.main", verb, *arguments, "--runtime-dir", runtime]
