"""Namespaces from inside, and packet sockets whose frames can be waited for."""

import contextlib
import ctypes
import os
import socket

from lbfwd.demo.lab import eventually
from lbfwd.net.bpf import encode

CLONE_NEWNET = 0x40000000
SOL_PACKET, PACKET_FANOUT, PACKET_FANOUT_DATA, PACKET_IGNORE_OUTGOING = 263, 18, 22, 23
SO_ATTACH_FILTER = 26
FANOUT_CBPF_IGNORE_OUTGOING = 6 | 0x4000
ETH_P_ALL = 3
DEADLINE_S = 10
SENTINEL = b"\xff" * 12 + b"\x88\xb5" + b"the end" + bytes(40)  # a local experimental ethertype

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(host):
    """Run the block, and the threads and processes that it starts, in the host's namespace."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    target = os.open(f"/run/netns/{host.netns}", os.O_RDONLY)
    try:
        _enter(target)
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)
        os.close(target)


def _enter(namespace):
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def until(fact, what):
    """Return the fact once it is true; fail after the deadline."""
    return eventually(fact, DEADLINE_S, what)


def mac(host, device):
    return host.run("cat", f"/sys/class/net/{device}/address").strip()


def load(sock, level, option, program):
    raw = ctypes.create_string_buffer(encode(program))

    class Fprog(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    sock.setsockopt(level, option, bytes(Fprog(len(program), ctypes.addressof(raw))))


def tap(device, program=None, group=None):
    """A packet socket in the order of the design: filter, bind, join."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if program is not None:
        load(sock, socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    sock.bind((device, ETH_P_ALL))
    if group is not None:
        sock.setsockopt(SOL_PACKET, PACKET_FANOUT, group | FANOUT_CBPF_IGNORE_OUTGOING << 16)
    return sock


def sender(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((device, 0))
    return sock


def received(sock, last=SENTINEL):
    """Return the frames that came before the one that is sent last."""
    sock.settimeout(DEADLINE_S)
    frames = []
    while (frame := sock.recv(65536)) != last:
        frames.append(frame)
    return frames


def waiting(sock):
    """Return the frames that are in the socket's queue."""
    sock.setblocking(False)
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(sock.recv(65536))
    return frames
