"""Routing daemons with the files of deploy/, in namespaces of a lab."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.failover.text import deployed
from lbfwd.demo.lab import Host, eventually

START_S = 20.0
FRR = Path("/usr/lib/frr")


@dataclass(frozen=True)
class Detection:
    """How router and nodes notice each other's absence.

    ``bfd``: 300 ms x 5, as deploy/ has it; without it BGP's hold time, ``hold_s``.
    """

    bfd: bool = True
    hold_s: int = 9

    def __str__(self) -> str:
        """Name it."""
        return "BFD, 300 ms x 5" if self.bfd else f"BGP alone, hold time {self.hold_s} s"

    def bird(self) -> list[tuple[str, str]]:
        """Return what is replaced in a BIRD configuration of deploy/."""
        pairs = [("hold time 9;", f"hold time {self.hold_s};")]
        return pairs if self.bfd else [*pairs, ("bfd on;", "bfd off;")]

    def frr(self) -> list[tuple[str, str]]:
        """Return what is replaced in an FRR configuration of deploy/."""
        pairs = [("timers 3 9", f"timers {max(1, self.hold_s // 3)} {self.hold_s}")]
        return pairs if self.bfd else [*pairs, (" bfd profile lb", " description no BFD")]


class Bird:
    """A running BIRD."""

    def __init__(
        self, host: Host, name: str, directory: Path, pairs: Sequence[tuple[str, str]]
    ) -> None:
        """Start it with deploy/NAME, in which texts are replaced."""
        self._host = host
        self._control = directory / "bird.ctl"
        log = ("log syslog all;", f'log "{directory}/bird.log" all;')
        config = directory / "bird.conf"
        config.write_text(deployed(name, log, *pairs), encoding="utf-8")
        self._control.unlink(missing_ok=True)
        self.process: subprocess.Popen[Any] = host.start(
            "bird", "-f", "-c", str(config), "-s", str(self._control), "-P", str(directory / "pid")
        )
        eventually(self._control.exists, START_S, "bird listens")

    def ask(self, *words: str) -> str:
        """Return what birdc says."""
        return self._host.run("birdc", "-s", str(self._control), *words)


class Frr:
    """Running FRR daemons: zebra, bfdd and bgpd."""

    DAEMONS = ("zebra", "bfdd", "bgpd")

    def __init__(
        self, host: Host, name: str, directory: Path, pairs: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Start them with deploy/NAME, in which texts are replaced.

        They run as another user, who must be able to reach the directory.
        """
        self._host = host
        self._directory = directory / "frr"
        self._directory.mkdir()
        shutil.chown(self._directory, "frr", "frr")
        config = self._directory / "frr.conf"
        config.write_text(deployed(name, *pairs), encoding="utf-8")
        self.processes = [self._start(daemon, config) for daemon in self.DAEMONS]

    def _start(self, daemon: str, config: Path) -> "subprocess.Popen[Any]":
        own = self._directory
        places = [
            "-z",
            str(own / "zserv"),
            "--vty_socket",
            str(own),
            "-i",
            str(own / f"{daemon}.pid"),
        ]
        extra = [f"--bfdctl={own / 'bfdd.sock'}"] if daemon == "bfdd" else []
        with (own / f"{daemon}.log").open("a") as log:
            process = self._host.start(
                str(FRR / daemon), "-f", str(config), *places, *extra, stdout=log, stderr=log
            )
        eventually((own / f"{daemon}.vty").exists, START_S, f"{daemon} listens")
        return process

    def ask(self, command: str) -> str:
        """Return what vtysh says."""
        return self._host.run("vtysh", "--vty_socket", str(self._directory), "-c", command)
