"""Path MTUs of our tunnels, which the kernel learns from ICMP errors that quote our GRE.

It takes an error over only while a socket of the quoted protocol is open: one raw GRE socket a
family (Linux net/ipv4/raw.c raw_icmp_error, net/ipv6/raw.c raw6_icmp_error). What it has learned
is an exception of the route to the quoted destination, and Net.resolve reads it there. Errors
reach the socket only where the outer source is an address of this machine.

An IPv6 socket that is not connected is told of errors only with IPV6_RECVERR; its queue of them is
as small as the kernel allows, and what does not fit has had its effect before (rawv6_err).
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lbfwd.net import bpf
from lbfwd.net.filter import DROP_ALL

_IPV6_RECVERR = 25
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


@contextmanager
def listening_for_path_mtus() -> Iterator[None]:
    """Have the kernel learn path MTUs meanwhile. Raises PermissionError without CAP_NET_RAW.

    The sockets receive nothing: a filter drops GRE before it is queued.
    """
    with ExitStack() as stack:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_GRE)
            except OSError as error:
                if error.errno in _NO_SUCH_FAMILY:  # a kernel without IPv6
                    continue
                raise
            stack.enter_context(sock)
            _refuse_packets(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        yield


def _refuse_packets(sock: socket.socket) -> None:
    bpf.attach(sock, DROP_ALL)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the least that the kernel allows
