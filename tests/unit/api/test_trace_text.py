"""What ``lbfwd trace`` prints, and when it says that nodes do not agree."""

import json
from pathlib import Path

import pytest

from lbfwd.api import client
from lbfwd.cli import trace as verb
from lbfwd.cli.main import main
from lbfwd.cli.nodes import Place
from lbfwd.supervisor.trace import Trace
from tests.unit.api.traces import trace
from tests.unit.api.values import backend

FLOW = ["tcp", "198.51.100.7:40000", "192.0.2.10:80"]


def lines(said: Trace) -> dict[str, str]:
    return {line[:10].strip(): line[10:] for line in verb.describe(said)}


def test_every_fact_has_its_line() -> None:
    said = lines(trace())
    assert said["flow"] == "tcp 198.51.100.7:40000 192.0.2.10:80"
    assert said["worker"] == "1, by the fanout program"
    assert said["service"] == "http (affinity 5-tuple, pool web, fingerprint 00112233aabbccdd)"
    assert said["hash"] == "00000000000000ff, bucket 7 of 251: b"
    assert said["entries"] == "worker 0: a (tcp, seen 3 s ago, bucket 2 of 2)"
    assert said["backend"] == "web/a (10.0.0.1)"
    assert said["standing"].startswith("up for 01:00:3")
    assert said["next hop"] == "10.0.0.1 (02:00:00:00:00:01) on eth1, MTU 1500"
    assert said["outer"] == "02:00:00:00:00:02 > 02:00:00:00:00:01 on eth1"
    assert said["outcome"] == "forwarded"
    text = "\n".join(verb.describe(trace()))
    assert "10.0.0.254 > 10.0.0.1, TTL 64, TOS 0x00, DF, 64 bytes, GRE protocol 0x0800" in text
    assert "".join(line.strip() for line in text.splitlines()).count("02" * 16) == 2


def test_a_dropped_packet_has_only_what_it_has() -> None:
    said = lines(
        trace(outcome="dropped", reason="no_vip", because="the destination is no VIP of this node",
              chosen_by="nobody", service=None, table=None, entries=(), pool="", backend=None,
              hop=None, outer=None, worker=None)
    )  # fmt: skip
    assert said["outcome"] == "dropped no_vip"
    assert said["worker"] == "depends on the core or queue that receives the packet"
    assert not said.keys() & {"service", "hash", "entries", "standing", "next hop", "outer"}


def answers(*traces: Trace) -> list[verb.Answer]:
    return [verb.Answer(Place((said.node, 9108)), said) for said in traces]


def test_equal_nodes_agree() -> None:
    assert verb.differences(answers(trace(), trace(node="lb2", generation=3, worker=0))) == []


def test_a_difference_is_told_with_what_each_says() -> None:
    one = trace()
    assert one.service
    other = one.service.model_copy(update={"fingerprint": "ff"})
    found = verb.differences(answers(one, trace(node="lb2", service=other)))
    assert found == ["fingerprint: lb1 00112233aabbccdd, lb2 ff"]
    found = verb.differences(answers(one, trace(node="lb2", backend=backend("b", 251))))
    assert found == ["backend: lb1 web/a (10.0.0.1), lb2 web/b (10.0.0.1)"]


def asking(monkeypatch: pytest.MonkeyPatch, *said: Trace | str) -> list[tuple[str, int]]:
    """The nodes that are asked, in this order, answer so."""
    replies, asked = list(said), []

    def reply(host: str, port: int, _resource: str, *_request: object) -> bytes:
        asked.append((host, port))
        answer = replies[int(host.removeprefix("lb"))]
        if isinstance(answer, str):
            raise client.ApiError(answer)
        return answer.model_dump_json().encode()

    monkeypatch.setattr(client, "request_tcp", reply)
    return asked


def test_nodes_that_do_not_agree_are_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = asking(monkeypatch, trace(), trace(node="lb2", pool="other"))
    where = ["--node", "lb0", "--node", "lb1:99", "--runtime-dir", str(tmp_path)]
    assert main(["trace", *FLOW, *where]) == 1
    out = capsys.readouterr().out
    assert "the nodes do not agree\nbackend: lb1 web/a (10.0.0.1), lb2 other/a (10.0.0.1)" in out
    assert sorted(asked) == [("lb0", 9108), ("lb1", 99)]


def test_a_node_without_an_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asking(monkeypatch, trace(), "lb1:9108: timed out")
    where = ["--node", "lb0", "--node", "lb1", "--runtime-dir", str(tmp_path), "--json"]
    assert main(["trace", *FLOW, *where]) == 1
    out, err = capsys.readouterr()
    assert err == "lb1:9108: timed out\n"
    body = json.loads(out)
    assert (body["agree"], body["differences"]) == (False, [])
    assert [row["error"] for row in body["nodes"]] == ["", "lb1:9108: timed out"]


@pytest.mark.parametrize("node", ["", "a b", "lb1:x", "lb1:99999", "http://lb1", "user@lb1", "a/b"])
def test_what_is_no_node_is_wrong_usage(node: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["trace", *FLOW, "--node", node])
    assert end.value.code == 2


def test_a_flow_that_makes_no_sense_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "tcp", "198.51.100.7", "192.0.2.10:80"]) == 2
    assert "tcp needs a port: 198.51.100.7:PORT" in capsys.readouterr().err
