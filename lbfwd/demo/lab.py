"""Network namespaces, veth pairs and processes in them, all taken away again at the end.

Used by ``lbfwd demo`` and by the topology tests. Names carry the process id, so that two labs on
one machine never meet. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN over the namespaces it works in.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

STOP_TIMEOUT_S = 10.0
POLL_S = 0.02

T = TypeVar("T")


class LabError(Exception):
    """A command in the lab failed, or a fact did not come true; the text says which and why."""


class Host:
    """One network namespace."""

    def __init__(self, lab: "Lab", name: str) -> None:
        """Use ``Lab.host``."""
        self.name = name
        self.netns = f"{lab.prefix}{name}"
        self._lab = lab

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs ``command`` in this namespace."""
        return ["ip", "netns", "exec", self.netns, *command]

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """Run to the end and return stdout. Raises LabError on failure."""
        return _run(self.argv(command), stdin=stdin, check=check)

    def sysctl(self, **values: int | str) -> None:
        """Set net.* sysctls; ``__`` stands for ``.``: ``ipv4__ip_forward=1``."""
        settings = [f"net.{key.replace('__', '.')}={value}" for key, value in values.items()]
        self.run("sysctl", "-qw", *settings)

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[Any]":
        """Start a process that the lab stops at its end.

        It gets a session of its own: Ctrl-C on the terminal is for the lab's owner, who then stops
        everything in order.
        """
        options = {"start_new_session": True} | options
        return self._lab.adopt(subprocess.Popen(self.argv(command), **options))


class Lab:
    """Owns hosts and processes; a context manager that leaves nothing behind."""

    _serials = 0

    def __init__(self, prefix: str | None = None) -> None:
        """Create an empty lab. ``prefix`` of namespace names; default: unique on this machine."""
        Lab._serials += 1
        self.serial = Lab._serials
        self.prefix = f"lbfwd-{os.getpid()}-{self.serial}-" if prefix is None else prefix
        self._hosts: list[Host] = []
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
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

    def link(  # noqa: PLR0913, PLR0917 - both ends of a cable are described in one line
        self,
        a: Host,
        a_name: str,
        a_addresses: Sequence[str],
        b: Host,
        b_name: str,
        b_addresses: Sequence[str],
        mtu: int = 1500,
    ) -> None:
        """Join two hosts by a veth pair with these addresses (``10.0.0.1/24``)."""
        pair = f"{a_name} mtu {mtu} type veth peer name {b_name} mtu {mtu} netns {b.netns}"
        a.run("ip", "link", "add", *pair.split())
        for host, name, addresses in ((a, a_name, a_addresses), (b, b_name, b_addresses)):
            for address in addresses:
                host.run("ip", "address", "add", address, "dev", name)
            host.run("ip", "link", "set", name, "up")

    def adopt(self, process: "subprocess.Popen[Any]") -> "subprocess.Popen[Any]":
        """Stop this process when the lab ends."""
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Stop every process, the youngest first, then delete every namespace with its devices."""
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


def eventually(fact: Callable[[], T], timeout_s: float, what: str) -> T:
    """Return ``fact`` once it is true. Raises LabError naming ``what`` when it stays false."""
    deadline = time.monotonic() + timeout_s
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not so within {timeout_s:g} s")
        time.sleep(POLL_S)
    return found


def _run(argv: Sequence[str], stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        output = done.stderr.strip() or done.stdout.strip()
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {output}")
    return done.stdout
