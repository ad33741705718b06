"""One backend a network namespace: an abstract UNIX socket is the claim, and vanishes with us."""

import errno
import socket
import struct

from lbfwd.backend.request import BackendError

# Abstract names belong to a network namespace (unix(7)), as all that a backend changes does.
NAME = "\0lbfwd-backend"


def claim() -> socket.socket:
    """Claim this network namespace until the socket is closed. Raises BackendError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(NAME)
        sock.listen()
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise BackendError(
            f"another lbfwd backend{_owner()} runs in this network namespace: give it every --vip, "
            "or stop it first"
        ) from error
    return sock


def _owner() -> str:
    """Return who holds the claim, as text, if that can be known."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(NAME)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return ""
    pid, _uid, _gid = struct.unpack("3i", credentials)
    return f" (process {pid})" if pid else ""
