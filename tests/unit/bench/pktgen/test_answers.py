"""What the kernel printed, read back; the numbers are those that stand in the recorded files."""

from typing import Any

import pytest

from bench.pktgen import answers
from tests.unit.bench.pktgen.values import ERRORS, recorded


def error(command: str) -> dict[str, Any]:
    (found,) = (one for one in ERRORS if one["command"] == command and one["content"])
    return found


@pytest.mark.parametrize(
    ("state", "running", "stopped"),
    [
        ("idle", (), ()),
        ("added", (), ("eth0@0",)),
        ("running", ("eth0@0",), ()),
        ("stopped", (), ("eth0@0",)),
        ("reset", (), ()),
    ],
)
def test_a_thread(state: str, running: tuple[str, ...], stopped: tuple[str, ...]) -> None:
    thread = answers.thread(recorded(state, "kpktgend_0"))
    assert (thread.running, thread.stopped) == (running, stopped)
    assert thread.devices == running + stopped


def test_a_thread_with_two_devices() -> None:
    assert answers.thread(error("add_device lo@0")["content"]).stopped == ("lo@0", "eth0@0")


def test_counters_of_a_run_with_a_count() -> None:
    sent = answers.sent(recorded("done", "eth0@0"))
    assert (sent.packets, sent.errors) == (20000, 0)
    # Result: OK: 216976(c216370+d606) usec
    assert sent.elapsed_s == pytest.approx(0.216976, abs=1e-6)
    assert sent.idle_s == pytest.approx(0.000606, abs=1e-6)


def test_counters_of_a_run_that_was_stopped() -> None:
    sent = answers.sent(recorded("stopped", "eth0@1"))
    assert (sent.packets, sent.errors) == (19967, 0)
    assert sent.started_s == pytest.approx(15.180807)
    assert sent.stopped_s == pytest.approx(17.181643)


def test_counters_of_a_run_over_ipv6() -> None:
    sent = answers.sent(recorded("ipv6", "dum0@0"))
    assert sent.packets == 50000
    # Result: … 2437851pps
    assert sent.packets / sent.elapsed_s == pytest.approx(2437851, rel=1e-4)


def test_a_run_without_carrier_has_sent_nothing() -> None:
    assert answers.sent(recorded("no_carrier", "nc0@0")).packets == 0


@pytest.mark.parametrize(
    ("state", "outcome"), [("added", "Idle"), ("running", "Starting"), ("configured", "count")]
)
def test_a_device_that_has_not_run_has_no_counters(state: str, outcome: str) -> None:
    with pytest.raises(ValueError, match=outcome):
        answers.sent(recorded(state, "eth0@0"))


@pytest.mark.parametrize("text", ["", "Running\n", "Params: count 0\nResult: OK: 1(c1+d0) usec\n"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="thread of pktgen"):
        answers.thread(text)
    with pytest.raises(ValueError, match="no "):
        answers.sent(text)


def test_a_result_of_many_lines_is_one_line() -> None:
    said = answers.result(error("flag NO_SUCH_FLAG")["content"])
    assert said.startswith("Flag -:NO_SUCH_FLAG:- unknown Available flags,")
    assert said.endswith("NODE_ALLOC")


@pytest.mark.parametrize(
    ("command", "content"),
    [
        ("add_device eth0@0", recorded("added", "kpktgend_0")),
        ("count 20000", recorded("configured", "eth0@0")),
        ("add_device lo@0", error("add_device lo@0")["content"]),
    ],
)
def test_what_was_understood(command: str, content: str) -> None:
    assert answers.result(content).startswith(answers.expected(command))


@pytest.mark.parametrize(
    "command",
    [
        "rate 0",  # overlooked
        "ratep 0",
        "flag NO_SUCH_FLAG",
        "count 99999999999",  # cut
        "udp_src_max 65536",
        "flows 1000000",  # limited
    ],
)
def test_what_write_accepted_but_pktgen_did_not_understand(command: str) -> None:
    one = error(command)
    assert one["errno"] is None
    assert not answers.result(one["content"]).startswith(answers.expected(command))
