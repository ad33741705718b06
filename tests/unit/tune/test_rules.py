"""What is to be changed, by facts as cards have them; and that the doctor is content afterwards."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfwd.config import Config
from lbfwd.config.hardware import Hardware, parse_mask
from lbfwd.doctor import interfaces
from lbfwd.doctor.facts import Irq, Offloads
from lbfwd.tune import rules
from lbfwd.tune.facts import Count, Facts, Nic
from lbfwd.tune.run import foresee, tune
from lbfwd.tune.step import Action, Step, Write
from tests.unit.doctor.nodes import config, said

ROOT = Path(__file__).parents[3]
# /proc/interrupts of a virtio card with two pairs of queues, and of an Intel one (ixgbe, i40e).
VIRTIO = tuple(
    Irq(number, frozenset({0}), count, name)
    for number, count, name in (
        (37, 0, "virtio2-config"),
        (38, 62542, "virtio2-input.0"),
        (39, 49072, "virtio2-output.0"),
        (40, 812, "virtio2-input.1"),
        (41, 77, "virtio2-output.1"),
    )
)
# Before any packet has come, as at boot: an interrupt of each queue is told by its name.
QUIET = (Irq(50, frozenset({0}), 0, "i40e-tx1-TxRx-1"), Irq(51, frozenset({0}), 0, "i40e-misc"))
INTEL = tuple(Irq(60 + n, frozenset({0, 1, 2, 3}), 9, f"eth0-TxRx-{n}") for n in range(4))
MELLANOX = tuple(Irq(80 + n, frozenset({n}), 9, f"mlx5_comp{n}@pci:0000:3b:00.0") for n in range(2))
RPS = "/sys/class/net/eth0/queues/rx-0/rps_cpus"


def steps(nic: Nic, keys: str = "") -> list[tuple[str, str, str, str]]:
    """What is done to a card of a node with workers on cpus 2 and 3."""
    found = foresee(config(keys), Facts((nic,)))
    return [(o.step.old, o.step.new, str(o.step.do), str(o.step.undo)) for o in found]


def test_a_card_that_is_right_is_left_alone() -> None:
    irqs = (Irq(60, frozenset({2}), 9, "eth0-TxRx-0"), Irq(61, frozenset({3}), 9, "eth0-TxRx-1"))
    right = Nic("eth0", Count(2, 8), "combined", Count(4096, 4096), Offloads(gro=True), irqs,
                {RPS: frozenset()})  # fmt: skip
    assert steps(right) == []


def test_an_unknown_card_is_left_alone() -> None:
    assert steps(Nic("eth0")) == []


@pytest.mark.parametrize(
    ("queues", "new"),
    [
        (Count(1, 8), 2), (Count(3, 8), 2), (Count(2, 8), None), (Count(4, 8), None),
        (Count(1, 1), None), (Count(1, 0), None),
    ],
)  # fmt: skip
def test_queues(queues: Count, new: int | None) -> None:
    found = steps(Nic("eth0", queues))
    wanted = (str(queues.now), f"{new}", f"ethtool -L eth0 combined {new}",
              f"ethtool -L eth0 combined {queues.now}")  # fmt: skip
    assert found == [wanted] * (new is not None)


def test_queues_of_a_card_that_counts_them_by_direction() -> None:
    ((_old, _new, do, undo),) = steps(Nic("eth0", Count(1, 4), "rx"))
    assert (do, undo) == ("ethtool -L eth0 rx 2", "ethtool -L eth0 rx 1")


@pytest.mark.parametrize(
    ("ring", "new"), [(Count(256, 4096), 4096), (Count(512, 1024), 1024), (Count(8192, 8192), None)]
)
def test_rings_only_grow(ring: Count, new: int | None) -> None:
    found = steps(Nic("eth0", ring=ring))
    assert [do for _old, _new, do, _undo in found] == ([f"ethtool -G eth0 rx {new}"] if new else [])


@pytest.mark.parametrize(
    ("offloads", "keys", "wanted"),
    [
        (Offloads(gro=True), "", []),
        (Offloads(gro=True), 'ring = "v2"', ["ethtool -K eth0 gro off"]),
        (Offloads(gro=True, lro=True), "", ["ethtool -K eth0 lro off"]),
        (None, 'ring = "v2"', []),
    ],
)
def test_offloads(offloads: Offloads | None, keys: str, wanted: list[str]) -> None:
    assert [do for _o, _n, do, _u in steps(Nic("eth0", offloads=offloads), keys)] == wanted


@pytest.mark.parametrize(
    ("queues", "now", "wanted"),
    [
        (Count(1, 1), frozenset(), ("0", "c")),  # one queue for two workers: spread
        (Count(2, 2), frozenset({0, 1}), ("3", "0")),
        (Count(), frozenset({5}), ("20", "0")),
        (Count(1, 1), frozenset({2, 3}), None),
    ],
)
def test_packet_steering(
    queues: Count, now: frozenset[int], wanted: tuple[str, str] | None
) -> None:
    found = steps(Nic("eth0", queues, rps={RPS: now}))
    assert [(old, new) for old, new, _do, _undo in found] == ([wanted] if wanted else [])
    assert all(do == f"echo {new} > {RPS}" for _old, new, do, _undo in found)


@pytest.mark.parametrize(
    ("irqs", "places"),
    [
        (VIRTIO, {38: 2, 39: 2, 40: 3, 41: 3}),
        (INTEL, {60: 2, 61: 3, 62: 2, 63: 3}),
        (MELLANOX, {80: 2, 81: 3}),
        (QUIET, {50: 3}),
        ((Irq(9, frozenset({0}), 1), Irq(10, frozenset({3}), 1)), {9: 2}),  # no names: in order
    ],
    ids=["virtio", "intel", "mellanox", "quiet", "nameless"],
)
def test_the_interrupts_of_a_queue_go_to_one_worker(
    irqs: tuple[Irq, ...], places: dict[int, int]
) -> None:
    found = {do for _old, _new, do, _undo in steps(Nic("eth0", irqs=irqs))}
    assert found == {f"echo {c} > /proc/irq/{n}/smp_affinity_list" for n, c in places.items()}


def test_sysctls_are_raised_and_never_lowered() -> None:
    facts = Facts(sysctls={"core/optmem_max": 81920, "ipv4/neigh/default/gc_thresh3": 1 << 20})
    (step,) = (outcome.step for outcome in foresee(config(), facts))
    assert (step.what, step.old, step.new) == ("net.core.optmem_max", "81920", "1048576")
    assert step.undo == Write("/proc/sys/net/core/optmem_max", "81920")


def test_the_sysctls_are_those_of_the_file_for_every_start() -> None:
    text = (ROOT / "deploy/sysctl-node.conf").read_text()
    lines = re.findall(r"^net\.(\S+) = (\d+)$", text, re.M)
    assert {name.replace(".", "/"): int(value) for name, value in lines} == dict(rules.SYSCTLS)


@given(st.frozensets(st.integers(0, 200)))
def test_masks_are_read_back(cpus: frozenset[int]) -> None:
    assert parse_mask(rules.mask(cpus)) == cpus


def test_masks_are_the_kernels() -> None:
    assert rules.mask({0, 33}) == "2,00000001"
    assert rules.mask(()) == "0"


# ---- the doctor


def after(nic: Nic, step: Step) -> Nic:
    """The card when a step is done: what ethtool and the kernel would make of its command."""
    words = str(step.do).split()
    if words[:2] == ["ethtool", "-L"]:
        return replace(nic, queues=replace(nic.queues, now=int(words[4])))
    if words[:2] == ["ethtool", "-K"]:
        return replace(nic, offloads=replace(nic.offloads or Offloads(), **{words[3]: False}))
    if "/irq/" in words[3]:
        number = int(words[3].split("/")[3])
        moved = {number: frozenset({int(words[1])})}
        irqs = (replace(irq, cpus=moved.get(irq.number, irq.cpus)) for irq in nic.irqs)
        return replace(nic, irqs=tuple(irqs))
    return replace(nic, rps=dict(nic.rps) | {words[3]: parse_mask(words[1])})


def complaints(of: Config, nic: Nic) -> list[str]:
    """What the doctor says of a card."""
    spread = frozenset().union(*nic.rps.values())
    hardware = Hardware(queues={"eth0": nic.queues.now}, rps_cpus={"eth0": spread})
    checks = (interfaces.offloads, interfaces.queues, interfaces.interrupts)
    facts = {"config": of, "hardware": hardware, "offloads": {"eth0": nic.offloads or Offloads()},
             "irqs": {"eth0": nic.irqs}}  # fmt: skip
    return [f.what for check in checks for f in said(check, **facts)]


def cards() -> st.SearchStrategy[Nic]:
    cpus = st.frozensets(st.integers(0, 3), min_size=1, max_size=3)
    irqs = st.builds(
        lambda places: tuple(
            Irq(60 + n, cpus, count, f"eth0-TxRx-{n}") for n, (cpus, count) in enumerate(places)
        ),
        st.lists(st.tuples(cpus, st.integers(0, 2)), max_size=4),
    )
    queues = st.builds(
        lambda now, more: Count(now, now + more), st.integers(1, 4), st.integers(0, 4)
    )
    offloads = st.builds(Offloads, gro=st.booleans(), lro=st.booleans())
    rps = st.builds(lambda spread: {RPS: spread}, st.frozensets(st.integers(0, 3)))
    return st.builds(Nic, st.just("eth0"), queues, offloads=offloads, irqs=irqs, rps=rps)


@given(cards(), st.sampled_from(["v2", "v3"]), st.sampled_from(["hash", "cpu", "queue"]))
def test_the_doctor_is_content_afterwards(nic: Nic, ring: str, fanout: str) -> None:
    of = config(f'ring = "{ring}"\nfanout = "{fanout}"')
    now = nic

    def act(action: Action) -> str:
        nonlocal now
        now = after(now, Step("", "", "", "", action, action))
        return ""

    before = complaints(of, now)
    done = list(tune(of, lambda: Facts((now,)), act))
    assert complaints(of, now) == []
    assert done or not before
    assert list(foresee(of, Facts((now,)))) == []


# ---- the way from rule to rule


def test_what_is_refused_stops_nothing_else() -> None:
    nic = Nic("eth0", Count(1, 8), ring=Count(256, 4096), offloads=Offloads(lro=True))
    asked: list[Action] = []

    def act(action: Action) -> str:
        asked.append(action)
        return "Operation not supported" if "-G" in str(action) else ""

    done = list(tune(config(), lambda: Facts((nic,)), act))
    assert [bool(outcome.refused) for outcome in done] == [False, True, False]
    assert len(asked) == 3


def test_each_rule_looks_anew() -> None:
    before = Nic("eth0", Count(1, 8), irqs=INTEL[:1])
    after_it = replace(before, queues=Count(2, 8), irqs=INTEL[:2])
    looks = iter([Facts((before,))] * 2 + [Facts((after_it,))] * 9)
    outcomes = tune(config(), lambda: next(looks), lambda _action: "")
    done = [str(outcome.step.do) for outcome in outcomes]
    assert done[0] == "ethtool -L eth0 combined 2"
    assert "echo 3 > /proc/irq/61/smp_affinity_list" in done
