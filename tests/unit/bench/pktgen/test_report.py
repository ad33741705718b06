"""The report: numbers computed by hand from the recorded runs, and the whole command."""

import json
import sys
from pathlib import Path

import pytest

from bench.pktgen import __main__ as command
from bench.pktgen import answers, report
from bench.pktgen.node import NodeCount, WorkerCount
from bench.pktgen.plan import senders
from bench.pktgen.proc import Files
from tests.unit.bench.pktgen.test_node import status
from tests.unit.bench.pktgen.values import MAC, VETH, Kernel, options, recorded

NODE = NodeCount(
    name="lb1",
    workers=(WorkerCount(0, 2, 30_000, 1_000, 29_000), WorkerCount(1, 3, 9_000, 0, 9_000)),
    forwarded=37_500,
    dropped={"no_next_hop": 490},
    behind={"eth1: queue": 7},
)


def made(*given: str, node: NodeCount | None = NODE, state: str = "done") -> report.Report:
    chosen = options("--cpus", "0,1", *given)
    sent = tuple(answers.sent(recorded(state, f"eth0@{n}")) for n in (0, 1))
    return report.Report(chosen, senders(chosen, VETH), sent, node)


def test_the_rate_of_all_threads_is_over_the_time_in_which_any_sent() -> None:
    total = made().total
    # from 14761156us to 15001362us
    assert total.seconds == pytest.approx(0.240206)
    assert total.packets == 40_000
    assert total.pps == pytest.approx(40_000 / 0.240206)
    assert total.mbps == pytest.approx(total.pps * 512 / 1e6)
    assert total.line_mbps == pytest.approx(total.pps * 672 / 1e6)  # 14.88 M packets are 10 Gb/s


def test_one_thread_is_reported_as_pktgen_does() -> None:
    one = report.rate([answers.sent(recorded("stopped", "eth0@1"))], 64)
    assert int(one.pps) == 9979  # Result: … 9979pps


def test_the_losses_add_up() -> None:
    lost = report.lost(40_000, NODE)
    assert lost == {
        "on the way to the node's rings": 1_000,
        "no room in a ring": 1_000,
        "still in the node": 10,
        "dropped: no_next_hop": 490,
        "behind lbfwd: eth1: queue": 7,
    }
    assert 40_000 - sum(lost.values()) == 37_500 - 7


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_text() -> None:
    shown = rows(report.text(made()))
    assert ["eth0@1", "1", "1", "20,000", "0.214", "93,302"] in [row[:6] for row in shown]
    assert ["all", "40,000", "0.240", "166,524"] in [row[:4] for row in shown]
    assert ["0", "2", "30,000", "1,000", "29,000", "120,730"] in shown
    assert ["on", "the", "way", "to", "the", "node's", "rings", "1,000", "2.5000%"] in shown
    assert ["dropped:", "no_next_hop", "490", "1.2250%"] in shown
    assert ["forwarded,", "and", "not", "dropped", "behind", "37,493", "93.7325%"] in shown


def test_text_without_a_node_and_with_everything_to_be_told() -> None:
    text = report.text(made("--burst", "8", "--clone", "4", "--pps", "5000", node=None))
    assert "node" not in text
    assert "asked for 5,000 packets a second" in text
    assert "32 packets of a flow in a row" in text
    assert "too short a run to touch all flows" in text  # 10,000 flows of 32, 40,000 packets


def test_nothing_sent_is_reported() -> None:
    sent = answers.sent(recorded("no_carrier", "nc0@0"))
    chosen = options()
    text = report.text(report.Report(chosen, senders(chosen, VETH), (sent,), NODE))
    assert ["sent", "0", "-"] in rows(text)


def test_json() -> None:
    plain = json.loads(json.dumps(report.plain(made())))
    assert plain["options"]["vip"] == "192.0.2.10"
    assert plain["options"]["sources"] == ["198.18.0.0", "198.19.255.255"]
    assert plain["flows"] == 10_000
    assert [thread["packets"] for thread in plain["threads"]] == [20_000, 20_000]
    assert plain["total"]["packets"] == 40_000
    assert plain["node"]["dropped"] == {"no_next_hop": 490}
    assert plain["lost"]["no room in a ring"] == 1_000


# The interface lo is in every network namespace, has a carrier, and here nothing is sent on it.
ARGUMENTS = ["lo", "--mac", MAC, "--vip", "192.0.2.10", "--port", "53", "--seconds", "0.01"]


def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scale in (("now", 1), ("next", 3)):
        (tmp_path / name).write_text(status(scale).model_dump_json())
    program = (
        "import pathlib, sys; now, then = map(pathlib.Path, sys.argv[1:]);"
        "print(now.read_text()); then.exists() and then.rename(now)"
    )
    asked = f"{sys.executable} -c '{program}' {tmp_path}/now {tmp_path}/next"
    assert command.main([*ARGUMENTS, "--json", "--status-command", asked], Kernel()) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["total"]["packets"] == 19676
    assert printed["node"]["forwarded"] == 2 * 24690
    assert printed["machine"]["kernel"]


def test_without_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*ARGUMENTS, "--status-command", ""], Kernel()) == 0
    assert "19,676" in capsys.readouterr().out


def test_a_kernel_without_pktgen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(ARGUMENTS, Files(tmp_path / "pktgen")) == 1
    assert "modprobe pktgen" in capsys.readouterr().err


def test_without_a_status_nothing_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = Kernel()
    assert command.main([*ARGUMENTS, "--status-command", "no-such-lbfwd"], kernel) == 1
    assert "no-such-lbfwd" in capsys.readouterr().err
    assert kernel.written == []


def test_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = Kernel()

    def interrupt() -> None:
        raise KeyboardInterrupt

    kernel.on["delay 0"] = interrupt
    assert command.main([*ARGUMENTS, "--status-command", ""], kernel) == 130
    assert "interrupted" in capsys.readouterr().err
    assert kernel.written[-1] == ("pgctrl", "reset")
