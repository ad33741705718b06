"""A run against what a kernel was recorded to say: nothing is left behind, whatever happens."""

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from bench.pktgen import driver
from bench.pktgen.answers import Sent
from bench.pktgen.plan import Command, plan, senders
from bench.pktgen.proc import Files, RefusedError, interface
from tests.unit.bench.pktgen.values import VETH, Kernel, options, recorded

TWO_THREADS = ("--cpus", "0,1")


def run(kernel: Kernel, *given: str, seconds: float = 0.01) -> tuple[Sent, ...]:
    chosen = options(*TWO_THREADS, *given)
    made = senders(chosen, VETH)
    return driver.run(kernel, plan(chosen, made), made, seconds)


def orders(kernel: Kernel) -> list[str]:
    return [command for file, command in kernel.written if file == "pgctrl"]


def interrupt_the_wait() -> None:
    """Interrupt the main thread when it has started this one, and waits."""
    assert threading.main_thread().ident
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        stack = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident])
        names = [frame.name for frame in stack[-4:]]
        if "start" not in names and ("join" in names or "wait" in names):
            break
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_run_for_a_time() -> None:
    kernel = Kernel()
    sent = run(kernel)
    assert [one.packets for one in sent] == [19676, 19676]
    assert orders(kernel) == ["reset", "start", "stop", "reset"]
    assert kernel.devices == {}


def test_a_run_with_a_number_of_packets_is_not_stopped() -> None:
    kernel = Kernel()
    kernel.on["start"] = kernel.finish
    run(kernel, "--packets", "40000")
    assert orders(kernel) == ["reset", "start", "reset"]


def test_the_plan_is_written_in_order() -> None:
    kernel = Kernel()
    run(kernel)
    chosen = options(*TWO_THREADS)
    commands = plan(chosen, senders(chosen, VETH))
    written = [Command(*one) for one in kernel.written if one[0] != "pgctrl"]
    assert written == list(commands)


def test_a_stop_that_is_overlooked_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ASK_AGAIN_S", 0.001)
    kernel = Kernel(deaf=2)
    run(kernel)
    assert orders(kernel) == ["reset", "start", "stop", "stop", "stop", "reset"]


def test_an_interrupt_ends_the_run_and_nothing_interrupts_the_end() -> None:
    kernel = Kernel()
    kernel.on["start"] = interrupt_the_wait
    kernel.on["stop"] = lambda: os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(kernel, seconds=20)
    assert orders(kernel) == ["reset", "start", "stop", "reset"]
    assert kernel.devices == {}
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE_S", 0.01)
    kernel = Kernel(deaf=10**6)
    with pytest.raises(RefusedError, match="pgctrl: pktgen does not stop"):
        run(kernel)
    assert orders(kernel)[-1] == "reset"
    kernel.finish()


def test_devices_that_stay_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE_S", 0.0)
    kernel = Kernel()
    monkeypatch.setattr(kernel, "_reset", lambda: None)
    kernel.threads["kpktgend_1"] = recorded("stopped", "kpktgend_1")
    with pytest.raises(RefusedError, match="kpktgend_1: devices are not removed"):
        driver.clear(kernel)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "add_device eth9@0",
            "kpktgend_0: refused 'add_device eth9@0': errno 19; pktgen says: ERROR:",
        ),
        ("add_device down0@0", "errno 100; pktgen says: ERROR: can not add device down0@0"),
        ("add_device eth0@0", "errno 16; pktgen says: ERROR: can not add device eth0@0"),
        ("no_such 1", "refused 'no_such 1': errno 22; pktgen says: No such parameter \"no_such\""),
        ("clone_skb 8", "'clone_skb 8': not possible with this interface's driver (it cannot"),
        ("flag NO_SUCH_FLAG", "'flag NO_SUCH_FLAG'; pktgen says: Flag -:NO_SUCH_FLAG:- unknown"),
        ("count 99999999999", "'count 99999999999'; pktgen says: OK: count=9999999999"),
        ("flows 1000000", "'flows 1000000'; pktgen says: OK: flows=65536"),
        ("udp_src_max 65536", "'udp_src_max 65536'; pktgen says: OK: udp_src_max=0"),
        ("rate 0", "'rate 0'; pktgen says: Idle"),  # overlooked: the result stays what it was
    ],
)
def test_a_refused_command_is_told_with_what_pktgen_says(command: str, told: str) -> None:
    kernel = Kernel(refuse=command)
    file = "kpktgend_0" if command.startswith("add_device") else "eth0@0"
    kernel.devices["eth0@0"] = recorded("added", "eth0@0")
    with pytest.raises(RefusedError) as refused:
        driver.give(kernel, Command(file, command))
    assert str(refused.value).startswith(f"/proc/net/pktgen/{file}: refused {command!r}")
    assert told in str(refused.value)


@pytest.mark.parametrize("command", ["burst 8", "clone_skb 8"])
def test_a_refusal_by_the_interface_is_explained_and_cleaned_up(command: str) -> None:
    kernel = Kernel(refuse=command)
    name, value = command.split()
    with pytest.raises(RefusedError, match=f"eth0@0: refused '{command}': not possible with this"):
        run(kernel, {"burst": "--burst", "clone_skb": "--clone"}[name], value)
    assert orders(kernel) == ["reset", "reset"]
    assert kernel.devices == {}


def test_a_start_that_returns_too_early_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ASK_AGAIN_S", 0.001)
    kernel = Kernel(hasty=True)
    assert [one.packets for one in run(kernel)] == [19676, 19676]
    assert orders(kernel)[:3] == ["reset", "start", "stop"]


def test_a_run_that_went_wrong_is_told() -> None:
    kernel = Kernel()
    broken = recorded("added", "eth0@0").replace("Idle", "Error starting")
    kernel.finish()
    kernel.end = broken
    with pytest.raises(RefusedError, match="eth0@0: the run failed: Error starting"):
        run(kernel, "--packets", "2")
    assert orders(kernel)[-1] == "reset"


def test_look_finds_threads_and_an_idle_pktgen() -> None:
    kernel = Kernel()
    driver.look(kernel, (0, 1))
    assert kernel.written == []


def test_look_refuses_a_core_without_thread() -> None:
    with pytest.raises(RefusedError, match=r"--cpus 7: .* but kpktgend_0, kpktgend_1"):
        driver.look(Kernel(), (0, 7))


def test_look_refuses_a_busy_pktgen() -> None:
    kernel = Kernel()
    kernel.threads["kpktgend_1"] = recorded("running", "kpktgend_1")
    with pytest.raises(RefusedError, match="sending already: eth0@1; to stop it: echo stop >"):
        driver.look(kernel, (0,))


def test_files_of_a_kernel_without_pktgen(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"modprobe pktgen .*python -m bench.forward"):
        driver.look(Files(tmp_path / "pktgen"), (0,))


def test_files_are_read_and_written_in_one_piece(tmp_path: Path) -> None:
    (tmp_path / "pgctrl").write_bytes(b"")
    files = Files(tmp_path)
    files.write("pgctrl", "start")
    assert (tmp_path / "pgctrl").read_bytes() == b"start\n"
    assert files.read("pgctrl") == "start\n"
    assert files.names() == {"pgctrl"}
    with pytest.raises(RefusedError, match="eth0@0: No such file"):
        files.read("eth0@0")


def test_an_interface(tmp_path: Path) -> None:
    for queue in ("tx-0", "tx-1", "rx-0"):
        (tmp_path / "eth0/queues" / queue).mkdir(parents=True)
    with pytest.raises(RefusedError, match="eth0: is down"):
        interface("eth0", tmp_path)
    (tmp_path / "eth0/carrier").write_text("1\n")
    (tmp_path / "eth0/mtu").write_text("9000\n")
    found = interface("eth0", tmp_path)
    assert (found.tx_queues, found.mtu, found.carrier) == (2, 9000, True)
    for name in ("eth1", "../eth0", "."):
        with pytest.raises(RefusedError, match="no such interface"):
            interface(name, tmp_path)
