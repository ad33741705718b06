"""All input and output on pktgen: its directory in /proc, and what /sys says of an interface."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

PKTGEN = Path("/proc/net/pktgen")
INTERFACES = Path("/sys/class/net")
CONTROL = "pgctrl"
THREAD = "kpktgend_"  # and the number of the core that the thread is bound to
ENOTSUPP = 524  # include/linux/errno.h; user space has no name for it


@dataclass(frozen=True)
class Interface:
    """What limits sending. ``mtu``: bytes of an IP packet."""

    name: str
    tx_queues: int
    mtu: int
    carrier: bool


class RefusedError(Exception):
    """pktgen is not there, or it refused something. The text says what, where and why."""


class Files:
    """The files of pktgen. Each command is one write, and its outcome is read back."""

    def __init__(self, directory: Path = PKTGEN) -> None:
        self.directory = directory

    def names(self) -> frozenset[str]:
        """Return the files that are there. Raises RefusedError where there is no pktgen."""
        try:
            return frozenset(os.listdir(self.directory))
        except FileNotFoundError:
            raise RefusedError(
                f"{self.directory}: this kernel has no pktgen, or the module is not loaded: "
                "modprobe pktgen (CONFIG_NET_PKTGEN). Without it, `python -m bench.forward` "
                "measures in namespaces with a generator of its own."
            ) from None
        except PermissionError:
            raise RefusedError(f"{self.directory}: only root can use pktgen") from None

    def read(self, name: str) -> str:
        """Return a file's text. Raises RefusedError."""
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except OSError as error:
            raise RefusedError(f"{self.directory / name}: {error.strerror}") from error

    def write(self, name: str, command: str) -> None:
        """Write one command; ``start`` returns when all threads have stopped. Raises OSError."""
        descriptor = os.open(self.directory / name, os.O_WRONLY)
        try:
            os.write(descriptor, command.encode() + b"\n")
        finally:
            os.close(descriptor)


def reason(error: OSError) -> str:
    """Return what a number of an error means here."""
    if error.errno in (ENOTSUPP, errno.EOPNOTSUPP):
        return "not possible with this interface's driver (it cannot send a packet twice)"
    return error.strerror or str(error)


def interface(name: str, directory: Path = INTERFACES) -> Interface:
    """Look at an interface. Raises RefusedError where there is none of that name, or it is down."""
    place = directory / name
    if "/" in name or not (place / "queues").is_dir():
        raise RefusedError(f"{name!r}: no such interface")
    try:
        # An interface that is down answers EINVAL.
        carrier = (place / "carrier").read_text(encoding="ascii").strip() == "1"
        mtu = int((place / "mtu").read_text(encoding="ascii"))
    except OSError:
        raise RefusedError(f"{name}: is down; ip link set {name} up") from None
    return Interface(name, len(list((place / "queues").glob("tx-*"))), mtu, carrier)
