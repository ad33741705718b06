"""Network namespaces, veth pairs and processes in them, all taken away again at the end.

Used by ``lbfwd demo`` and by the topology tests. Names carry the process id, so that two labs on
one machine never meet. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN over the namespaces it works in.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Self

STOP_TIMEOUT_S = 10.0


class LabError(Exception):
    """A command in the lab failed; the text holds the command and its output."""


class Host:
    """One network namespace."""

    def __init__(self, lab: "Lab", name: str) -> None:
        """Use ``Lab.host``."""
        self.name = name
        self.netns = f"lbfwd-{os.getpid()}-{lab.serial}-{name}"
        self._lab = lab

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs ``command`` in this namespace."""
        return ["ip", "netns", "exec", self.netns, *command]

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """Run to the end and return stdout. Raises LabError on failure."""
        return _run(self.argv(command), stdin=stdin, check=check)

    def sysctl(self, **values: int | str) -> None:
        """Set net.* sysctls; ``__`` stands for ``.``: ``ipv4__ip_forward=1``."""
        for key, value in values.items():
            self.run("sysctl", "-qw", f"net.{key.replace('__', '.')}={value}")

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[Any]":
        """Start a process that the lab stops at its end."""
        return self._lab.adopt(subprocess.Popen(self.argv(command), **options))


class Lab:
    """Owns hosts and processes; a context manager that leaves nothing behind."""

    _serials = 0

    def __init__(self) -> None:
        """Create an empty lab."""
        Lab._serials += 1
        self.serial = Lab._serials
        self._hosts: list[Host] = []
        self._processes: list[subprocess.Popen[Any]] = []
        self._files: list[IO[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def host(self, name: str) -> Host:
        """Make a namespace with its loopback up."""
        host = Host(self, name)
        _run(["ip", "netns", "add", host.netns])
        self._hosts.append(host)
        host.run("ip", "link", "set", "lo", "up")
        # A veth's IPv6 address is usable at once only without duplicate address detection.
        host.sysctl(ipv6__conf__default__accept_dad=0, ipv6__conf__all__accept_dad=0)
        return host

    def link(  # noqa: PLR0913 - both ends of a cable are described in one line
        self, a: Host, a_name: str, a_addresses: Sequence[str], b: Host, b_name: str, b_addresses: Sequence[str], mtu: int = 1500
    ) -> None:
        """Join two hosts by a veth pair with these addresses (``10.0.0.1/24``)."""
        a.run("ip", "link", "add", a_name, "mtu", str(mtu), "type", "veth", "peer", "name", b_name, "mtu", str(mtu), "netns", b.netns)
        for host, name, addresses in ((a, a_name, a_addresses), (b, b_name, b_addresses)):
            for address in addresses:
                host.run("ip", "address", "add", address, "dev", name)
            host.run("ip", "link", "set", name, "up")

    def adopt(self, process: "subprocess.Popen[Any]") -> "subprocess.Popen[Any]":
        """Stop this process when the lab ends."""
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Stop every process, then delete every namespace (and with it its devices)."""
        for process in reversed(self._processes):
            stop(process)
        self._processes.clear()
        for host in self._hosts:
            with contextlib.suppress(LabError):
                _run(["ip", "netns", "delete", host.netns])
        self._hosts.clear()


def stop(process: "subprocess.Popen[Any]", timeout_s: float = STOP_TIMEOUT_S) -> int:
    """SIGTERM, wait, then SIGKILL. Returns the exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _run(argv: Sequence[str], stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
