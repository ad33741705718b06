"""What ``lbfwd trace --live`` prints, what it takes for a problem, and in which order it asks."""

import json
from pathlib import Path
from typing import Any

import pytest

from lbfwd.api import client
from lbfwd.cli import trace_live as verb
from lbfwd.cli.main import main
from lbfwd.cli.nodes import Place
from lbfwd.net import inject
from lbfwd.supervisor.live import LivePacket, LiveReport, LiveWatch
from lbfwd.supervisor.trace import Trace
from tests.unit.api.test_live import PACKET
from tests.unit.api.traces import trace

FLOW = ["tcp", "198.51.100.7:40000", "192.0.2.10:80"]
SAME = PACKET.model_copy(update={"pool": "web", "backend": "a"})
DROPPED = SAME.model_copy(
    update={"outcome": "dropped", "reason": "no_vip", "chosen_by": "nobody", "service": "",
            "pool": "", "backend": "", "address": None, "sent_on": ""},
)  # fmt: skip


def look(packet: LivePacket | None, node: str = "lb1", said: Trace | None = None) -> verb.Look:
    report = LiveReport(node=node, token="00" * 16, packet=packet)
    return verb.Look(Place((node, 9108)), said or trace(node=node), report)


def test_every_fact_has_its_line() -> None:
    said = {line[:10].strip(): line[10:] for line in verb.describe("lb1", trace(), SAME)}
    assert said == {
        "node": "lb1, generation 7",
        "flow": "tcp 198.51.100.7:40000 192.0.2.10:80",
        "worker": "1 (cpu 3), received on eth0",
        "service": "http",
        "backend": "web/a (10.0.0.1)",
        "because": "a flow table has its flow",
        "sent on": "eth1",
        "outcome": "forwarded",
        "foretold": "the same",
    }


def test_a_dropped_packet_has_only_what_it_has() -> None:
    said = {line[:10].strip(): line[10:] for line in verb.describe("lb1", None, DROPPED)}
    assert (said["backend"], said["service"], said["outcome"]) == ("none", "none", "dropped no_vip")
    assert not said.keys() & {"sent on", "foretold", "flow"}


def problems(*looks: verb.Look) -> list[str]:
    return verb.problems(looks, 2.0)


def test_one_that_goes_as_was_foretold_is_no_problem() -> None:
    assert problems(look(SAME), look(None, "lb2")) == []
    answered = DROPPED.model_copy(update={"outcome": "answered", "reason": "echo_answered"})
    quiet = trace(outcome="answered", reason="echo_answered", backend=None, pool="", worker=None)
    assert problems(look(answered, said=quiet)) == []


def test_problems_are_named() -> None:
    assert problems(look(None), look(None, "lb2")) == ["no node saw the packet within 2 s"]
    assert problems(verb.Look(Place(("lb1", 1)), error="lb1:1: refused")) == []
    assert problems(look(SAME), look(SAME, "lb2")) == [
        "lb1, lb2 saw it: it was duplicated on the way"
    ]
    assert problems(look(SAME), look(SAME)) == [], "one node, asked by two ways"
    assert problems(look(DROPPED)) == [
        "lb1: dropped no_vip",
        "lb1: outcome: forwarded was foretold, but it was dropped no_vip",
        "lb1: backend: web/a (10.0.0.1) was foretold, but it was none",
    ]
    elsewhere = SAME.model_copy(update={"backend": "b", "worker": 0})
    assert problems(look(elsewhere)) == [
        "lb1: backend: web/a (10.0.0.1) was foretold, but it was web/b (10.0.0.1)",
        "lb1: worker: 1 was foretold, but it was 0",
    ]
    assert problems(look(elsewhere, said=trace(worker=None)))[1:] == []


class Fleet:
    """Nodes lb0, lb1 … that see the packet, or do not; ``done``: what was asked, in order."""

    def __init__(self, *seen: LivePacket | None) -> None:
        self.seen = seen
        self.done: list[str] = []
        self.refusals: dict[str, str] = {}

    def request_tcp(
        self, host: str, _port: int, resource: str, method: str, body: Any, _timeout_s: float
    ) -> bytes:
        if refusal := self.refusals.get(method + resource.partition("?")[0]):
            raise client.ApiError(f"{host}: {refusal}")
        if resource.startswith("/v1/trace?"):
            self.done.append("foretell")
            return trace(node=host).model_dump_json().encode()
        if method == "POST":
            self.done.append("watch")
            return LiveWatch(node=host, **body).model_dump_json().encode()
        self.done.append("report")
        packet = self.seen[int(host.removeprefix("lb"))]
        token = resource.partition("token=")[2]
        return LiveReport(node=host, token=token, packet=packet).model_dump_json().encode()

    def send(self, packet: bytes, destination: object) -> None:
        assert packet[-24:-16] == b"lbfwdtrc"
        assert str(destination) == "192.0.2.10"
        self.done.append("send")

    def run(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *more: str) -> int:
        monkeypatch.setattr(client, "request_tcp", self.request_tcp)
        monkeypatch.setattr(inject, "send", self.send)
        monkeypatch.setattr(inject, "way_to", lambda _destination: "eth7")
        nodes = [word for n in range(len(self.seen)) for word in ("--node", f"lb{n}")]
        return main(["trace", "--live", *FLOW, *nodes, "--runtime-dir", str(tmp_path), *more])


def test_all_look_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fleet = Fleet(SAME, None)
    assert fleet.run(monkeypatch, tmp_path) == 0
    assert fleet.done == ["foretell"] * 2 + ["watch"] * 2 + ["send"] + ["report"] * 2
    out = capsys.readouterr().out
    assert out.startswith("node      lb0, generation 7\n")
    assert out.endswith("lb1 did not see it\n")


def test_when_nobody_saw_it_it_is_told_what_may_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert Fleet(None).run(monkeypatch, tmp_path, "--wait", "0.5") == 1
    out = capsys.readouterr().out
    assert "no node saw the packet within 0.5 s\nIt was sent by eth7 to 192.0.2.10." in out
    assert "rp_filter" in out


def test_json_has_it_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert Fleet(None, DROPPED).run(monkeypatch, tmp_path, "--json") == 1
    body = json.loads(capsys.readouterr().out)
    assert (body["agree"], body["problems"][0]) == (False, "lb1: dropped no_vip")
    assert [node["packet"] and node["packet"]["reason"] for node in body["nodes"]] == [
        None, "no_vip",
    ]  # fmt: skip
    assert body["nodes"][0]["trace"]["node"] == "lb0"


def test_nothing_is_sent_when_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fleet = Fleet(SAME)
    fleet.refusals = {"POST/v1/trace/live": "another live trace is under way"}
    assert fleet.run(monkeypatch, tmp_path) == 1
    assert fleet.done == ["foretell"]
    out, err = capsys.readouterr()
    assert err == "lb0: another live trace is under way\n"
    assert "It was sent" not in out


def test_what_cannot_be_sent_is_told_before_anybody_is_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """127.0.0.1 is an address of every machine."""
    words = ["trace", "--live", "udp", "198.51.100.7:1", "127.0.0.1:2"]
    assert main([*words, "--node", "127.0.0.1:9", "--runtime-dir", str(tmp_path)]) == 1
    assert "127.0.0.1 is an address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("wait", ["0", "5.1", "x", "nan"])
def test_a_wait_that_makes_no_sense_is_wrong_usage(wait: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["trace", "--live", *FLOW, "--wait", wait])
    assert end.value.code == 2
