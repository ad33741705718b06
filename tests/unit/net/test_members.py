"""The numbers of a fanout group's members, against a group kept as the kernel keeps it."""

import pytest

from lbfwd.net import members
from lbfwd.net.members import Members, numbers, without


class Group:
    """The members of a fanout group (__fanout_link, __fanout_unlink), by rank of creation."""

    def __init__(self, order):
        self.order = list(order)

    def unlink(self, member):
        at = self.order.index(member)
        self.order[at] = self.order[-1]
        self.order.pop()

    def flap(self):
        self.order.sort()

    def receiver(self, yielded):
        return self.order[yielded % len(self.order)]


class Witness:
    """The socket that tells of flaps; ``error``: what the kernel has left there."""

    def __init__(self):
        self.error = 0

    def setsockopt(self, *_option):
        pass

    def bind(self, _address):
        pass

    def getsockopt(self, *_option):
        error, self.error = self.error, 0
        return error

    def close(self):
        pass


@pytest.fixture
def link(monkeypatch):
    """An interface that is up, and whose witness a test can tell of flaps."""
    witness, state = Witness(), {"up": True}
    monkeypatch.setattr(members.socket, "socket", lambda *_kind: witness)
    monkeypatch.setattr(Members, "_is_up", lambda _self: state["up"])
    return witness, state


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 64])
def test_successors_have_every_packet_while_the_old_members_leave(slots, link):
    old, new = range(slots), range(slots, 2 * slots)
    group, known = Group([*old, *new]), Members("n0", old)
    known.join(slots)
    for leaving in reversed(old):
        after = without(known.order, leaving)
        yielded = numbers(new, known.order, after)
        assert [group.receiver(number) for number in yielded] == [*new], "before it leaves"
        assert known.leave(leaving, lambda leaving=leaving: group.unlink(leaving))
        assert [group.receiver(number) for number in yielded] == [*new], "and after"
        assert known.order == after == tuple(group.order)
    known.renumber()
    assert known.order == tuple(old), "in slot order, as after the next link flap"


@pytest.mark.parametrize("flap_at", range(3))
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_flap_is_taken_into_account(link, flap_at, when):
    witness, _state = link
    slots = 3
    group, known = Group(range(2 * slots)), Members("n0", range(slots))
    known.join(slots)

    def flap():
        group.flap()
        witness.error = 100  # ENETDOWN

    for gone, leaving in enumerate(reversed(range(slots))):
        if when == "before" and gone == flap_at:
            flap()
            assert not known.leave(leaving, pytest.fail), "the program was made for another order"
            assert known.order == tuple(group.order)

        def close(leaving=leaving, gone=gone):
            group.unlink(leaving)
            if when == "during" and gone == flap_at:
                flap()

        assert known.leave(leaving, close)
        assert known.order == tuple(group.order)
    yielded = numbers(range(slots, 2 * slots), known.order)
    assert [group.receiver(number) for number in yielded] == list(range(slots, 2 * slots))


def test_what_leaves_while_the_link_is_down(link):
    _witness, state = link
    known = Members("n0", range(4))
    state["up"] = False
    assert not known.leave(1, pytest.fail), "it may come up at any moment"
    assert known.leave(1, lambda: None, whatever=True)
    state["up"] = True
    assert known.look()
    assert known.order == (0, 2, 3), "those that are left, as they were created"
