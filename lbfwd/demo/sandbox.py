"""Namespaces for the demo, from which nothing can leak: they vanish with their first process.

``unshare`` gives the demo network, mount and process namespaces of its own; an ordinary user gets
a user namespace around them, in which it is root (user_namespaces(7)). Everything that the demo
makes lives in them, so the kernel takes it away even when the demo is killed.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lbfwd.backend.plan import GRE_KINDS

TOOLS = {
    "ip": "iproute2",
    "ss": "iproute2",
    "nft": "nftables",
    "sysctl": "procps",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child")
AS_USER = ("--user", "--map-root-user")
INTERRUPTED = 128 + signal.SIGINT
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TUN = Path("/dev/net/tun")
# What can forbid user namespaces, by sysctl: the value that does, and what it means.
FORBIDDING = {
    "kernel.unprivileged_userns_clone": ("0", "user namespaces are for root only"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "AppArmor restricts user namespaces"),
    "user.max_user_namespaces": ("0", "there may be no user namespaces"),
}
CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class SandboxError(Exception):
    """The demo cannot run here; the text says why and what would help."""


@dataclass(frozen=True)
class Way:
    """A way to get namespaces: ``command`` makes them, ``enter`` gets into them by {pid}."""

    name: str
    command: tuple[str, ...]
    enter: str


ROOT = Way("as root", UNSHARE, "nsenter --target {pid} --mount --net --pid")
USER = Way(
    "as an ordinary user, in a user namespace",
    (*UNSHARE, *AS_USER),
    "nsenter --target {pid} --user --preserve-credentials --mount --net --pid",
)


def run(stay: bool) -> int:
    """Run the demo in namespaces of its own. Returns its exit code. Raises SandboxError."""
    environment = with_sbin(os.environ)
    require_tools(environment["PATH"])
    way = choose((ROOT, USER) if os.geteuid() == 0 else (USER,), environment)
    require_tunnel(way, environment)
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with its:
            process = subprocess.Popen(
                [*way.command, *inside(way, its.fileno(), stay)],
                env=environment,
                pass_fds=[its.fileno()],
                start_new_session=True,  # Ctrl-C comes to us, and by the leash to the demo
            )
        return follow(process, mine)


def inside(way: Way, leash: int, stay: bool) -> list[str]:
    """Return the command that is the first process of the namespaces."""
    options = ["--leash", str(leash), "--way", way.name, "--enter", way.enter]
    return [sys.executable, "-m", "lbfwd.demo", *options, *(["--stay"] if stay else [])]


def follow(process: "subprocess.Popen[bytes]", leash: socket.socket) -> int:
    """Wait for the demo; let the leash go at the first signal to stop, kill it at the second."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if leash.fileno() >= 0:
            leash.close()
        else:
            process.kill()  # and the kernel takes its namespaces away

    before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        tell_pid(leash)
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_pid(leash: socket.socket) -> None:
    """Tell the demo by which process id it is known out here.

    The kernel puts the sender's id, as seen by the receiver, beside each message (unix(7)).
    """
    try:
        _hello, ancillary, *_ = leash.recvmsg(1, socket.CMSG_SPACE(CREDENTIALS.size))
        for _level, _type, data in ancillary:
            leash.send(str(CREDENTIALS.unpack(data)[0]).encode())
    except OSError:  # let go, or the demo has ended: its exit code tells
        return


def choose(ways: Sequence[Way], environment: Mapping[str, str]) -> Way:
    """Return the first way that works. Raises SandboxError with every complaint."""
    complaints = {}
    for way in ways:
        complaint = attempt(way, environment, "mount", "-t", "tmpfs", "lbfwd-demo", "/run")
        if complaint is None:
            return way
        complaints[way.name] = complaint
    raise SandboxError(no_namespaces(complaints, read_sysctls()))


def attempt(way: Way, environment: Mapping[str, str], *command: str) -> str | None:
    """Run a command in namespaces that go with it. Returns None, or why it did not work."""
    trial = subprocess.run(
        [*way.command, *command], env=environment, capture_output=True, text=True, check=False
    )
    return None if trial.returncode == 0 else trial.stderr.strip()


def no_namespaces(complaints: Mapping[str, str], sysctls: Mapping[str, str]) -> str:
    """Explain why there are no namespaces. ``complaints`` by the name of the way."""
    lines = ["no network namespaces here"]
    lines += [f"  {way}: {complaint}" for way, complaint in complaints.items()]
    lines += [
        f"  {name} = {value}: {meaning}"
        for name, (value, meaning) in FORBIDDING.items()
        if sysctls.get(name) == value
    ]
    if ROOT.name in complaints:
        lines.append("  a container must allow CAP_SYS_ADMIN and CAP_NET_ADMIN (--privileged)")
    else:
        lines.append("  run it as root: sudo lbfwd demo")
    return "\n".join(lines)


def require_tunnel(way: Way, environment: Mapping[str, str]) -> None:
    """Raise SandboxError where backends could not unwrap GRE: no GRE devices, and no TUN."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        for kind in GRE_KINDS.values():
            add = ("ip", "link", "add", "name", "gre-trial", "type", kind, "external")
            if attempt(way, environment, *add) is not None:
                raise SandboxError(
                    f"{TUN}: {error.strerror}: this kernel has no {kind} device, and backends "
                    "need TUN to unwrap GRE without it\n"
                    "  modprobe tun; in a container, pass the device in; or run as root"
                ) from error


def require_tools(path: str) -> None:
    """Raise SandboxError naming the packages of tools that are not there."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        packages = sorted({TOOLS[tool] for tool in missing})
        raise SandboxError(f"missing: {', '.join(missing)}\n  apt-get install {' '.join(packages)}")


def with_sbin(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the folders of system tools, which ordinary users lack."""
    path = f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {**environment, "PATH": path}


def read_sysctls(names: Sequence[str] = tuple(FORBIDDING)) -> dict[str, str]:
    """Return those sysctls that this kernel has."""
    files = {name: Path("/proc/sys", *name.split(".")) for name in names}
    return {name: file.read_text().strip() for name, file in files.items() if file.exists()}
