"""The real ``lbfwd capture`` beside the real node; tshark reads what it writes.

client c0 ──── n0 node n1 ──── f0 farm        (tests/topology/node/stage.py)
          before        after
"""

import json
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbfwd.demo.lab import eventually
from tests.oracle.encap import inner_packet, unwrapped
from tests.topology.node.stage import CONFIG, FARM4, VIP4, Node, Stage, running
from tests.topology.node.test_oracle import is_gre, random_frame
from tests.topology.node.wires import Sender, frames

pytestmark = pytest.mark.topology

PACKETS = 120
END_S = 20
FLOOD, FLOOD_S = 30_000, 30  # packets: more than wait in 8 MiB
# One more service, to tell it from the others by its port.
SERVICE = f"""
[[service]]
name = "web"
vip = "{VIP4}"
protocol = "tcp"
port = 80
pool = "four"
"""


@dataclass(frozen=True)
class Row:
    """One packet as tshark reads it; ``words`` are those of the comment."""

    interface: str
    outbound: bool
    time: str
    length: int
    words: dict[str, str]
    data: bytes


class Capture:
    """``lbfwd capture`` on the node, from when it has begun."""

    def __init__(self, node: Node, file: Path, *options: str) -> None:
        self.file = file
        self._said = file.with_suffix(".said")
        argv = node.host.argv(node.command("capture", "--write", str(file), *options))
        with self._said.open("w") as said:
            self.process = subprocess.Popen(argv, stderr=said)
        self.says("capturing on")

    def said(self) -> str:
        return self._said.read_text()

    def says(self, text: str) -> None:
        """Wait until it has said this, or has ended."""
        eventually(lambda: text in self.said() or self.process.poll() is not None, END_S, text)
        assert text in self.said(), self.said()

    def end(self, signum: int = 0) -> str:
        """Wait for its end, after a signal if need be; returns what it said."""
        if signum:
            self.process.send_signal(signum)
        assert self.process.wait(END_S) == 0, self.said()
        return self.said()

    def rows(self) -> list[Row]:
        """Return the packets as tshark reads them."""
        argv = ["tshark", "-n", "-r", str(self.file), "-T", "ek", "-x", "-J", "frame pkt_comment"]
        text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        lines = (json.loads(line) for line in text.splitlines())
        return [row(line["layers"]) for line in lines if "layers" in line]


def row(layers: dict[str, Any]) -> Row:
    frame = layers["frame"]
    comment = layers["pkt_comment"]["frame_frame_comment"]
    return Row(
        interface=frame["frame_frame_interface_name"],
        outbound=frame["frame_frame_packet_flags_direction"] == "0x00000002",
        time=frame["frame_frame_time_epoch"],
        length=int(frame["frame_frame_len"]),
        words=dict(word.split("=", 1) for word in comment.split()),
        data=bytes.fromhex(layers["frame_raw"]),
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Node]]:
    with running(tmp_path_factory.mktemp("capture"), CONFIG + SERVICE) as found:
        yield found


@pytest.fixture
def capture(site: tuple[Stage, Node], tmp_path: Path):  # type: ignore[no-untyped-def]
    started: list[Capture] = []

    def start(*options: str) -> Capture:
        started.append(Capture(site[1], tmp_path / f"{len(started)}.pcapng", *options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def macs(stage: Stage) -> dict[str, str]:
    return {"src": stage.mac(stage.client, "c0"), "dst": stage.mac(stage.node, "n0")}


def send(stage: Stage, sent: list[bytes]) -> None:
    with stage.tap(stage.client, "c0") as source:
        for frame in sent:
            source.send(frame)


def random_frames(stage: Stage, count: int = PACKETS) -> list[bytes]:
    dice = random.Random(20261124)
    return [random_frame(dice, *macs(stage).values()) for _ in range(count)]


def web(stage: Stage, port: int, client_port: int, seq: int = 1) -> bytes:
    ip = IP(src="198.51.100.77", dst=VIP4) / TCP(sport=client_port, dport=port, seq=seq, flags="A")
    return bytes(Ether(**macs(stage)) / ip / Raw(b"x" * 40))


def test_both_sides_of_every_packet(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, node = site
    sink = stage.tap(stage.farm, "f0")
    before = node.forwarded()
    sent = random_frames(stage)
    running_capture = capture("--count", str(2 * PACKETS))
    send(stage, sent)
    said = running_capture.end()
    assert f"{2 * PACKETS} packets written: {PACKETS} before encapsulation, {PACKETS} after" in said
    assert said.count(" 0 of them were dropped") == 2

    rows = running_capture.rows()
    received = [row for row in rows if row.words["packet"] == "before"]
    tunnelled = [row for row in rows if row.words["packet"] == "after"]
    assert sorted(row.data for row in received) == sorted(sent)
    assert {(row.interface, row.outbound) for row in received} == {("n0", False)}
    assert {(row.interface, row.outbound) for row in tunnelled} == {("n1", True)}
    # What left, byte for byte, as the farm has got it.
    assert sorted(row.data for row in tunnelled) == sorted(f for f in frames(sink) if is_gre(f))

    # Both sides of a packet are said to be of one service and one backend.
    def told(row: Row, inner: bytes) -> tuple[bytes, str, str]:
        return inner, row.words["service"], row.words["backend"]

    assert Counter(told(row, inner_packet(row.data)) for row in received) == Counter(
        told(row, unwrapped(row.data)) for row in tunnelled
    )
    assert all(row.words["backend"] in str(destination(row.data)) for row in tunnelled)
    # In the order of time, and forwarding has missed nothing.
    times = [row.time for row in rows]
    assert times == sorted(times)
    assert node.forwarded() - before == PACKETS


def destination(frame: bytes) -> str:
    packet = Ether(frame).payload
    return str(packet.dst)


def test_a_service_by_its_port(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, _node = site
    running_capture = capture("--service", "web", "--count", "6")
    send(stage, [web(stage, port, 5000 + n) for n in range(3) for port in (80, 81)])
    running_capture.end()
    assert Counter(
        (row.words["packet"], row.words["service"]) for row in running_capture.rows()
    ) == {
        ("before", "web"): 3,
        ("after", "web"): 3,
    }


@pytest.mark.slow
def test_a_backend(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, node = site
    sink = stage.tap(stage.farm, "f0")
    running_capture = capture("--backend", FARM4[1])
    send(stage, [web(stage, 80, 6000 + n) for n in range(60)])
    tunnelled = [frame for frame in frames(sink) if is_gre(frame)]
    assert len(tunnelled) == 60
    got = [frame for frame in tunnelled if destination(frame) == FARM4[1]]
    assert 5 < len(got) < 55
    node.until(lambda _status: running_capture.file.stat().st_size > 2 * len(got) * 94, "written")
    running_capture.process.send_signal(signal.SIGINT)
    running_capture.end()
    rows = running_capture.rows()
    assert {row.words["backend"] for row in rows} == {FARM4[1]}
    by_side = Counter(row.words["packet"] for row in rows)
    assert by_side == {"before": len(got), "after": len(got)}


def test_a_flow_after_encapsulation_only(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, _node = site
    running_capture = capture(
        "--flow", "tcp", "198.51.100.77:7001", f"{VIP4}:80", "--after", "--count", "3"
    )
    send(stage, [web(stage, 80, 7000 + n % 3, n) for n in range(9)])
    running_capture.end()
    rows = running_capture.rows()
    assert [TCP(unwrapped(row.data)[20:]).sport for row in rows] == [7001] * 3
    assert {row.words["packet"] for row in rows} == {"after"}


def test_a_drop_reason(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, node = site
    ether = Ether(**macs(stage))
    ip = IP(src="198.51.100.77", dst=VIP4)
    sctp = bytes(ether / ip.__class__(**{**ip.fields, "proto": 132}) / Raw(b"x" * 40))
    bad = bytearray(web(stage, 80, 8000))
    bad[24] ^= 0xFF  # the IP checksum
    good = web(stage, 80, 8001)
    before = node.status()["drops"]
    named = capture("--drop", "unsupported_protocol", "--count", "1")
    every = capture("--drop", "any", "--count", "2")
    send(stage, [good, bytes(bad), sctp, good])
    named.end()
    every.end()
    assert [row.data for row in named.rows()] == [sctp]
    assert {(row.data, row.words["reason"]) for row in every.rows()} == {
        (sctp, "unsupported_protocol"),
        (bytes(bad), "bad_ip_checksum"),
    }
    after = node.status()["drops"]
    assert {k: after[k] - before[k] for k in after if after[k] != before[k]} == {
        "unsupported_protocol": 1,
        "bad_ip_checksum": 1,
    }


@pytest.mark.slow
def test_a_sample_holds_pairs(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, _node = site
    sink = stage.tap(stage.farm, "f0")
    running_capture = capture("--sample", "4")
    send(stage, random_frames(stage))
    assert len([frame for frame in frames(sink) if is_gre(frame)]) == PACKETS
    running_capture.process.send_signal(signal.SIGTERM)
    running_capture.end()
    sides: dict[str, list[bytes]] = {"before": [], "after": []}
    for row in running_capture.rows():
        inner = inner_packet(row.data) if row.words["packet"] == "before" else unwrapped(row.data)
        sides[row.words["packet"]].append(inner)
    assert sorted(sides["before"]) == sorted(sides["after"])
    assert PACKETS / 8 < len(sides["before"]) < PACKETS / 2


@pytest.mark.slow
def test_packets_are_cut_and_still_explained(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, _node = site
    running_capture = capture("--snaplen", "160", "--count", "2")
    udp = IP(src="198.51.100.77", dst=VIP4) / UDP(sport=1, dport=53) / Raw(b"x" * 1000)
    send(stage, [bytes(Ether(**macs(stage)) / udp)])
    running_capture.end()
    rows = running_capture.rows()
    assert [len(row.data) for row in rows] == [160, 160]
    assert {row.words["service"] for row in rows} == {"4in6"}
    assert len({row.words["backend"] for row in rows}) == 1
    assert [row.length for row in rows] == [14 + 1028, 14 + 44 + 1028]


def test_a_reader_that_goes_ends_it(site) -> None:  # type: ignore[no-untyped-def]
    _stage, node = site
    argv = node.host.argv(node.command("capture"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert b"capturing on" in process.stderr.readline()
            process.stdout.close()
            assert process.wait(END_S) == 0
            said = process.stderr.read().decode()
        finally:
            process.kill()
    assert "nobody reads it any more" in said
    assert "no packet matched" in said


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--service", "nothing"], "--service nothing: no such service"),
        (["--drop", "tx_ring_full"], "it lies in the moment"),
        (["--drop", "any", "--after"], "a dropped packet is never encapsulated"),
        (["--write", "/nonexistent/x", "--count", "1"], "/nonexistent/x: No such file"),
    ],
)
def test_refusals(site, options: list[str], text: str) -> None:  # type: ignore[no-untyped-def]
    _stage, node = site
    argv = node.host.argv(node.command("capture", *options))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=END_S)
    assert (done.returncode, text in done.stderr, done.stdout) == (1, True, ""), done.stderr


@pytest.mark.slow
def test_a_capture_that_does_not_keep_up_disturbs_nobody(site, capture) -> None:  # type: ignore[no-untyped-def]
    stage, node = site
    before = node.status()
    slow = capture("--rate", "10", "--before")
    template = web(stage, 80, 9000)
    with stage.tap(stage.client, "c0") as source, Sender(source, [template]) as sender:
        eventually(lambda: sender.sent > FLOOD, FLOOD_S, "sent")
        sent = sender.stop()
    node.until(lambda s: s["workers"] and node.forwarded() >= _packets(before) + sent, "forwarded")
    slow.process.send_signal(signal.SIGINT)
    said = slow.end()
    (line,) = [line for line in said.splitlines() if "n0: " in line]
    passed, dropped = (int(word) for word in line.split() if word.isdigit())
    assert passed == sent
    assert dropped > 0
    # Forwarding has lost nothing.
    after = node.status()
    assert _packets(after) - _packets(before) == sent
    assert after["drops"] == before["drops"]
    assert not [r for w in after["workers"] for r in w["rings"] if r["drops"]]


def _packets(status: dict[str, Any]) -> int:
    return sum(service["packets"] for service in status["services"])
