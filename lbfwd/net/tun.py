"""A TUN device of one's own: layer 3, no packet information, gone with its descriptor.

Linux Documentation/networking/tuntap.rst, <linux/if_tun.h>.
"""

import errno
import fcntl
import os
import struct

PATH = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_FLAGS = 0x0001 | 0x1000 | 0x8000  # IFF_TUN, IFF_NO_PI, IFF_TUN_EXCL: not one that is there


class TunError(Exception):
    """There is no such device; the text says why."""


class NoTun(TunError):  # noqa: N818 - the name says what is wrong
    """The machine has no TUN, or not for us."""


class Taken(TunError):  # noqa: N818 - the name says what is wrong
    """There is a device of this name."""


def open_tun(name: str, flags: int = 0) -> int:
    """Make the device; returns its descriptor. ``flags``: of open(2), beside the usual ones.

    Raises TunError.
    """
    try:
        fd = os.open(PATH, os.O_RDWR | os.O_CLOEXEC | flags)
    except OSError as error:
        hint = "modprobe tun; in a container, pass the device in"
        raise NoTun(f"{PATH}: {error.strerror} ({hint})") from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _FLAGS))
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EBUSY:
            raise Taken(f"TUN device {name}: a device of this name is there already") from error
        raise TunError(f"TUN device {name}: {error.strerror}") from error
    return fd
