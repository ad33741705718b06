"""Rates between two answers, and how they look on a screen."""

import io

import pytest
from rich.console import Console

from lbfwd.cli.rates import sample
from lbfwd.cli.text import duration, scaled
from lbfwd.cli.top_screen import screen
from lbfwd.supervisor.status import Status
from tests.unit.api.values import status


def later(before: Status, **changes: object) -> Status:
    """Two seconds on: 100 packets of 1,000 bytes, 6 new flows (4 at a), 4 drops, 20 bursts."""
    service, (pool,), worker = before.services[0], before.pools, before.workers[0]
    more = {
        "packets": service.packets + 100,
        "bytes": service.bytes + 100_000,
        "new_flows": service.new_flows + 6,
    }
    backend = pool.backends[0].model_copy(
        update={
            "packets": pool.backends[0].packets + 100,
            "bytes": pool.backends[0].bytes + 100_000,
            "new_flows": pool.backends[0].new_flows + 4,
        }
    )
    rings = (worker.rings[0].model_copy(update={"drops": 5 + 2}), worker.rings[1])
    moved = {"seen": 1104, "bursts": 120, "waits": 120, "rings": rings}
    changed = {
        "uptime_s": before.uptime_s + 2,
        "services": (service.model_copy(update=more),),
        "pools": (pool.model_copy(update={"backends": (backend, pool.backends[1])}),),
        "workers": (worker.model_copy(update=moved), before.workers[1]),
        "drops": before.drops | {"fragment": 21},
        "events": before.events | {"flow_new": 29},
    }
    return before.model_copy(update=changed | changes)


def test_rates_are_differences_by_time() -> None:
    found = sample(status(), later(status()))
    assert found.seconds == pytest.approx(2)
    assert (found.packets, found.bits, found.new_flows) == pytest.approx((50, 400_000, 3))
    assert (found.services["http"].new_flows, found.services["http"].flows) == (3, 42)
    assert [found.backends["web", name].new_flows for name in "ab"] == [2, 0]
    assert found.backends["web", "a"].packets == pytest.approx(50)
    assert found.backends["web", "b"].packets == 0
    assert {n: r for n, r in found.drops.items() if r} == pytest.approx({"fragment": 2})


def test_a_workers_load_is_its_share_of_rounds_with_work() -> None:
    load = sample(status(), later(status())).workers[0]
    assert (load.packets, load.bursts, load.waits, load.ring_drops) == pytest.approx(
        (52, 10, 15, 1)
    )
    assert load.busy == pytest.approx(0.4)
    assert sample(status(), later(status())).workers[1].busy == 0


def test_after_a_restart_there_are_no_rates() -> None:
    found = sample(status(), later(status(), pid=78))
    assert (found.seconds, found.packets, found.new_flows) == (0, 0, 0)


def test_a_counter_that_began_anew_has_no_rate() -> None:
    found = sample(later(status()), status().model_copy(update={"uptime_s": 1e6}))
    assert (found.packets, found.drops["fragment"]) == (0, 0)


def drawn(width: int, height: int, after: Status) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(screen(after, sample(status(), after), width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def crowd(count: int) -> Status:
    after = later(status())
    (pool,) = after.pools
    up, down = pool.backends
    many = tuple(up.model_copy(update={"name": f"up-{n}"}) for n in range(count))
    backends = (*many, down.model_copy(update={"name": "the-one-that-is-down"}))
    return after.model_copy(update={"pools": (pool.model_copy(update={"backends": backends}),)})


@pytest.mark.parametrize("height", [12, 24, 50])
def test_a_screen_fits_and_says_what_it_leaves_out(height: int) -> None:
    lines = drawn(80, height, crowd(100))
    assert len(lines) <= height
    assert max(map(len, lines)) <= 80
    shown = sum("/up-" in line for line in lines)
    assert any(f"{100 - shown} more" in line for line in lines)
    assert any("the-one-that-is-down" in line for line in lines), "trouble comes first"


def test_figures_are_whole_at_80_columns() -> None:
    text = "\n".join(drawn(80, 24, later(status())))
    for figure in ("50 pkt/s", "400kbit/s", "3 new flows/s", "40%", "42", "fragment 2"):
        assert figure in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7, "7"), (0.25, "0.25"), (999, "999"), (999.9, "1.00k"), (1234, "1.23k"),
     (456789, "457k"), (1e9, "1.00G"), (12.5e12, "12.5T"), (1e16, "10000T")],
)  # fmt: skip
def test_numbers_have_three_digits_and_a_unit(number: float, text: str) -> None:
    assert scaled(number) == text


def test_durations_have_days() -> None:
    assert (duration(3599.9), duration(86400)) == ("00:59:59", "1 d 00:00:00")
