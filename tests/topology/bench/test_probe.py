"""The prober, judged by a packet socket of our own that sees the same frames and timestamps."""

import json
import socket
import struct
from pathlib import Path

import pytest

from bench.probe import Prober, Way, direct_way, templates, way_through_node
from bench.stage import Stage
from lbfwd.demo.lab import Lab, eventually
from tests.topology.node.wires import tap

pytestmark = pytest.mark.topology

SO_TIMESTAMPNS = 35  # asm-generic/socket.h
COUNT, RATE = 400, 2000
WAIT_S = 10.0


def frame_and_time(sock: socket.socket) -> tuple[bytes, int]:
    """Return a frame and when the kernel received it, in nanoseconds."""
    data, ((_, _, stamp),), *_ = sock.recvmsg(2048, 64)
    seconds, nanoseconds = struct.unpack("=qq", stamp)
    return data, seconds * 10**9 + nanoseconds


def test_a_stream_arrives_as_sent_and_when_the_kernel_says(tmp_path: Path) -> None:
    with Lab() as lab:
        way = direct_way(Stage(lab))
        with tap(way.sink, way.input) as sock:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            stream = Prober(tmp_path).start(way, RATE, COUNT).wait()
            seen = [frame_and_time(sock) for _ in range(COUNT)]
    frames = templates(way.macs)
    for number, (data, _) in enumerate(seen):
        trailer = b"lbfwdpro" + number.to_bytes(8, "little")
        assert data == frames[number % len(frames)][:-16] + trailer
    assert list(stream.arrived) == [time for _, time in seen]
    assert all(a <= b for a, b in zip(stream.sent, stream.arrived, strict=True))
    # It may be late, but never sends before its time.
    assert stream.sent[-1] - stream.sent[0] > 0.5 * (COUNT - 1) * 10**9 / RATE


def test_what_nobody_forwards_is_lost(tmp_path: Path) -> None:
    with Lab() as lab:
        stream = Prober(tmp_path).start(way_through_node(Stage(lab)), RATE, COUNT).wait()
    assert (len(stream.sent), stream.lost) == (COUNT, COUNT)


def test_what_the_kernel_refuses_is_not_sent(tmp_path: Path) -> None:
    with Lab() as lab:
        way = direct_way(Stage(lab))
        way.sink.run("ip", "link", "set", way.input, "down")
        running = Prober(tmp_path).start(way, RATE, COUNT)
        eventually(lambda: refused(way) > 0, WAIT_S, "a frame is refused")
        way.sink.run("ip", "link", "set", way.input, "up")
        stream = running.wait()
    assert (len(stream.sent), stream.lost) == (COUNT, 0)


def refused(way: Way) -> int:
    text = way.source.run("ip", "-s", "-j", "link", "show", way.output)
    return int(json.loads(text)[0]["stats64"]["tx"]["dropped"])
