import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbfwd.slots import Moves, Seat, Slots, Tally

NAMES = st.sets(st.sampled_from("abcdefgh"))


class Counters:
    """Counters that only grow, as the workers' do."""

    def __init__(self) -> None:
        self.values: dict[int, Tally] = {}

    def read(self, slot: int) -> Tally:
        return self.values.get(slot, (0, 0, 0))

    def add(self, slot: int, packets: int, size: int) -> None:
        before = self.read(slot)
        self.values[slot] = before[0] + packets, before[1] + size, before[2] + 1


def slots(most: int = 8) -> tuple[Slots[str], Counters]:
    counters = Counters()
    return Slots("backends", most, counters.read), counters


def plan(seats: Slots[str], keys: str) -> Moves[str]:
    """Who is not among the keys leaves."""
    coming = [key for key in keys if key not in seats]
    return seats.plan(coming, [key for key in seats.seats if key not in keys])


def settle(seats: Slots[str], keys: str) -> dict[str, Seat]:
    moves = plan(seats, keys)
    rows = seats.rows(moves)
    seats.commit(moves)
    assert all(seat.slot < rows for seat in seats.seats.values())
    return {key: seats[key] for key in keys}


def count(seats: Slots[str], counters: Counters) -> dict[str, Tally]:
    tenants = seats.tenants()
    now = [counters.read(slot) for slot in range(tenants.slots)]
    columns = ([row[0] for row in now], [row[1] for row in now], [row[2] for row in now])
    return {key: (packets, size, new) for key, packets, size, new in tenants.counts(columns)}


def test_seats_are_given_from_0_on() -> None:
    seats, _ = slots()
    assert settle(seats, "abc") == {"a": Seat(0, 1), "b": Seat(1, 1), "c": Seat(2, 1)}


def test_who_stays_keeps_its_seat() -> None:
    seats, _ = slots()
    settle(seats, "abc")
    assert settle(seats, "cb") == {"c": Seat(2, 1), "b": Seat(1, 1)}
    assert settle(seats, "dcb") == {"d": Seat(0, 2), "c": Seat(2, 1), "b": Seat(1, 1)}


def test_a_returning_key_inherits_nothing() -> None:
    seats, counters = slots()
    first = settle(seats, "a")["a"]
    counters.add(first.slot, 5, 500)
    settle(seats, "")
    again = settle(seats, "a")["a"]
    assert again == Seat(first.slot, first.incarnation + 1)
    assert count(seats, counters) == {"a": (0, 0, 0)}
    counters.add(again.slot, 2, 30)
    assert count(seats, counters) == {"a": (2, 30, 1)}


def test_an_array_by_slot_is_as_long_as_the_most_that_there_were() -> None:
    seats, _ = slots()
    assert seats.rows(plan(seats, "abc")) == 3
    settle(seats, "abc")
    settle(seats, "")
    assert seats.rows(plan(seats, "de")) == 3
    assert seats.rows(plan(seats, "defgh")) == 5


def test_a_leavers_seat_is_free_only_in_the_next_plan() -> None:
    """While workers still use the old generation its counters are the leaver's."""
    seats, _ = slots()
    settle(seats, "a")
    assert settle(seats, "b") == {"b": Seat(1, 1)}
    assert settle(seats, "bc") == {"b": Seat(1, 1), "c": Seat(0, 2)}


def test_planning_changes_nothing() -> None:
    seats, counters = slots()
    settle(seats, "ab")
    counters.add(0, 1, 10)
    for _ in range(3):
        assert plan(seats, "bcd") == Moves({"c": Seat(2, 1), "d": Seat(3, 1)}, ["a"])
    assert count(seats, counters)["a"] == (1, 10, 1)
    assert settle(seats, "abc") == {"a": Seat(0, 1), "b": Seat(1, 1), "c": Seat(2, 1)}


def test_too_many_are_refused() -> None:
    seats, _ = slots(most=3)
    settle(seats, "abc")
    with pytest.raises(ValueError, match="4 backends: at most 3"):
        plan(seats, "abcd")
    settle(seats, "ab")
    assert settle(seats, "abd")["d"] == Seat(2, 2)


@given(st.lists(st.tuples(NAMES, st.lists(st.sampled_from("abcdefgh")))))
def test_over_many_reloads(steps: list[tuple[set[str], list[str]]]) -> None:
    seats, counters = slots(most=16)
    before: dict[str, Seat] = {}
    counted: dict[str, int] = {}
    incarnations: set[tuple[int, int]] = set()
    for names, packets in steps:
        now = settle(seats, "".join(sorted(names)))
        assert set(now) == names
        assert len({seat.slot for seat in now.values()}) == len(now), "one tenant a slot"
        for name, seat in now.items():
            if name in before:
                assert seat == before[name]
            else:
                assert (seat.slot, seat.incarnation) not in incarnations
                counted[name] = 0
            incarnations.add((seat.slot, seat.incarnation))
        for name in packets:
            if name in now:
                counters.add(now[name].slot, 1, 100)
                counted[name] += 1
        assert count(seats, counters) == {
            n: (counted[n], 100 * counted[n], counted[n]) for n in now
        }
        before = now
