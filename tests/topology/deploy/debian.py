"""A clean Debian in namespaces: a root made by debootstrap, and systemd as its process 1.

Its network namespace is a lab's host. Its control groups are below one of its own.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbfwd.demo.lab import Host, eventually

BOOT = Path(__file__).with_name("boot.sh")
SUITE = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
PYTHON = "/usr/bin/python3"
PACKAGES = "systemd,systemd-sysv,dbus,python3,nftables,iproute2,procps,ethtool,netplan.io"
BOOT_S = 60.0
_CGROUPS = Path("/sys/fs/cgroup")
_V2 = (_CGROUPS / "cgroup.controllers").exists()


def tools() -> None:
    """Skip the test where this machine cannot do it, and say why."""
    if platform.freedesktop_os_release()["ID"] != "debian":
        pytest.skip("needs Debian: the package is for this machine's release")
    for tool in ("debootstrap", "unshare", "nsenter", "dpkg-deb", PYTHON):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    if not (_CGROUPS if _V2 else _CGROUPS / "systemd").is_dir():
        pytest.skip("needs the control groups of systemd (cgroup v2, or v1 named systemd)")


def unpack(place: Path) -> Path:
    """Return a clean root. Making one takes more than a minute, so it is kept for the next time."""
    contents = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:12]
    kept = Path(tempfile.gettempdir()) / f"lbfwd-debian-{contents}.tar"
    root = place / "root"
    if not kept.exists():
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        aside = kept.with_suffix(f".{os.getpid()}")
        _tar("-cf", str(aside), "-C", str(root), ".")
        aside.replace(kept)
        return root
    root.mkdir()
    _tar("-xf", str(kept), "-C", str(root))
    return root


def _tar(*arguments: str) -> None:
    subprocess.run(["tar", "--numeric-owner", "--xattrs", *arguments], check=True)


class Machine:
    """A Debian that has booted in a host's network namespace."""

    def __init__(self, host: Host, root: Path) -> None:
        """Use ``booted``."""
        self.root = root
        self._host = host
        self._process: subprocess.Popen[str] | None = None
        self._group = (_CGROUPS if _V2 else _CGROUPS / "systemd") / f"lbfwd-test-{os.getpid()}"

    def boot(self) -> None:
        self._group.mkdir()
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup"]
        boot = [str(BOOT), str(self.root), "cgroup2" if _V2 else "cgroup"]
        command = self._host.argv(["unshare", *namespaces, "--fork", "--kill-child", *boot])
        enter = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        argv = ["sh", "-c", enter, "sh", *command]
        self._process = subprocess.Popen(argv, text=True, start_new_session=True)
        eventually(self._has_booted, BOOT_S, "systemd has booted")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in it. Raises AssertionError when it fails."""
        done = self.attempt(*command)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *command: str) -> "subprocess.CompletedProcess[str]":
        pid = self._init()
        enter = ["nsenter", "-t", str(pid), "--all", f"--root=/proc/{pid}/root", "--wd=/"]
        return subprocess.run(
            [*enter, *command], capture_output=True, text=True, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def close(self) -> None:
        """End it with all its processes, and take its control groups away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._group.exists():
            eventually(self._groups_are_gone, BOOT_S, "control groups are gone")

    def _init(self) -> int:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(children.read_text().split()[0])

    def _has_booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "it did not boot"
        with contextlib.suppress(OSError, IndexError):
            state = self.attempt("systemctl", "is-system-running").stdout.strip()
            return state in ("running", "degraded")
        return False

    def _groups_are_gone(self) -> bool:
        for folder, _subfolders, _files in os.walk(self._group, topdown=False):
            with contextlib.suppress(OSError):  # its last process is just ending
                os.rmdir(folder)
        return not self._group.exists()


@contextlib.contextmanager
def booted(host: Host, root: Path) -> Iterator[Machine]:
    """Boot a root in a host's network namespace."""
    machine = Machine(host, root)
    try:
        machine.boot()
        yield machine
    finally:
        machine.close()
