"""The node's counters: what is read of a status of lbfwd, and what happened in between."""

import sys

import pytest

from bench.pktgen import node
from bench.pktgen.node import NoStatusError, Status, WorkerCount
from tests.unit.api.values import status as lbfwd_status


def status(scale: int = 1, pid: int = 77) -> Status:
    """A status of lbfwd, its counters multiplied."""
    real = lbfwd_status()
    workers = tuple(
        worker.model_copy(
            update={
                "seen": worker.seen * scale,
                "rings": tuple(
                    ring.model_copy(
                        update={"packets": ring.packets * scale, "drops": ring.drops * scale}
                    )
                    for ring in worker.rings
                ),
            }
        )
        for worker in real.workers
    )
    services = tuple(s.model_copy(update={"packets": s.packets * scale}) for s in real.services)
    interfaces = tuple(
        i.model_copy(update={"qdisc_tx_dropped": i.qdisc_tx_dropped * scale})
        for i in real.interfaces
    )
    drops = {reason: count * scale for reason, count in real.drops.items()}
    update = {"workers": workers, "services": services, "interfaces": interfaces, "drops": drops}
    changed = real.model_copy(update=update | {"pid": pid})
    return Status.model_validate_json(changed.model_dump_json())


def test_what_was_counted_in_between() -> None:
    counted = node.counted(status(1), status(3))  # so twice the values of tests/unit/api/values.py
    assert counted.name == "lb1"
    assert counted.workers == (
        WorkerCount(slot=0, cpu=2, received=2010, ring_full=10, taken=2000),
        WorkerCount(slot=1, cpu=3, received=0, ring_full=0, taken=0),
    )
    assert (counted.received, counted.ring_full) == (2010, 10)
    assert counted.forwarded == 2 * 24690
    assert counted.dropped == {"fragment": 34}
    assert counted.behind == {"eth0: queue": 18}


def test_a_worker_that_came_during_the_run() -> None:
    before = status(1).model_copy(update={"workers": ()})
    assert node.counted(before, status(1)).workers[0].taken == 1000


def test_a_restart_is_refused() -> None:
    with pytest.raises(NoStatusError, match=r"lb1 \(pid 77\) is lb1 \(pid 78\) after the run"):
        node.counted(status(), status(pid=78))


def test_a_command_is_asked() -> None:
    text = status().model_dump_json()
    assert node.ask((sys.executable, "-c", f"print({text!r})")) == status()


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.exit('no lbfwd here')", "exit code 1: no lbfwd here"),
        ("print('hello')", "not the status of lbfwd: .*Invalid JSON"),
        ('print(\'{"node": "a"}\')', "not the status of lbfwd: pid: Field required"),
    ],
)
def test_what_a_command_prints_wrongly_is_told(program: str, told: str) -> None:
    with pytest.raises(NoStatusError, match=told):
        node.ask((sys.executable, "-c", program))


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(NoStatusError, match=r"no-such-lbfwd status: .*No such file"):
        node.ask(("no-such-lbfwd", "status"))


def test_counters_that_move_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [status(1), status(2), status(3), status(3)]
    monkeypatch.setattr(node, "ask", lambda _command: answers.pop(0))
    monkeypatch.setattr(node, "ASK_AGAIN_S", 0.0)
    assert node.settled(("lbfwd",)) == status(3)
    assert answers == []


def test_other_traffic_does_not_keep_us_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [status(1), status(2), status(3)]
    monkeypatch.setattr(node, "ask", lambda _command: answers.pop(0))
    monkeypatch.setattr(node, "SETTLE_S", -1.0)
    assert node.settled(("lbfwd",)) == status(2)
