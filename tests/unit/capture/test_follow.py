"""When the node is asked again: with a control file as lbfwd writes it, and a clock of ours."""

import threading
from pathlib import Path

import pytest

from lbfwd.capture import follow
from lbfwd.capture.follow import IDLE_S, LOOK_S, SHARE, Follower, published
from lbfwd.capture.selection import CaptureError
from lbfwd.demo.lab import eventually
from lbfwd.shared import CONTROL_BYTES, Control

SOON_S = 10.0


class Clock:
    """A node, the time, and how often the node was asked."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "control"
        self.now = 100.0
        self.asked = 0
        self.answer: str | Exception = "status"
        self.may_answer = threading.Event()
        self.may_answer.set()

    def publish(self, generation: int) -> None:
        """A new file, as that of an lbfwd that was started again; or the one that is there."""
        memory = bytearray(self.file.read_bytes() if self.file.exists() else bytes(CONTROL_BYTES))
        control = Control(memory)
        if not self.file.exists():
            control.init(1, 64)
        control.publish(generation, 64)
        control.release()
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(memory)

    def look(self) -> str:
        self.asked += 1
        assert self.may_answer.wait(SOON_S)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def after(self, seconds: float, follower: Follower[str]) -> str | None:
        """Let time pass; returns what the follower then has, once whatever it began is done."""
        self.now += seconds
        assert follower.news() is None, "it never waits for an answer"
        pending = follower._pending
        if pending is not None and self.may_answer.is_set():
            eventually(pending.done, SOON_S, "the look is done")
        return follower.news()


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock(tmp_path)
    monkeypatch.setattr(follow.time, "monotonic", lambda: found.now)
    found.publish(3)
    return found


def test_a_node_that_stays_as_it_is_is_asked_seldom(clock: Clock) -> None:
    follower = Follower(clock.file, clock.look)
    assert [clock.after(LOOK_S, follower) for _ in range(4)] == [None] * 4
    assert clock.asked == 0
    assert clock.after(LOOK_S, follower) == "status", f"{IDLE_S} s have passed"


def test_a_new_generation_is_looked_at_within_a_second(clock: Clock) -> None:
    follower = Follower(clock.file, clock.look)
    clock.publish(4)
    assert clock.after(LOOK_S, follower) == "status"
    assert clock.after(LOOK_S, follower) is None
    assert clock.asked == 1


def test_an_lbfwd_that_was_started_again_is_another(clock: Clock) -> None:
    follower = Follower(clock.file, clock.look)
    before = published(clock.file)
    clock.file.rename(clock.file.with_suffix(".old"))  # it is kept: its inode is not used again
    assert published(clock.file) is None
    clock.publish(3)
    after = published(clock.file)
    assert before is not None
    assert after is not None
    assert (before[1], after[1], before[0] == after[0]) == (3, 3, False)
    assert clock.after(LOOK_S, follower) == "status"


def test_a_node_that_does_not_answer_is_asked_again(clock: Clock) -> None:
    follower = Follower(clock.file, clock.look)
    clock.publish(4)
    clock.answer = CaptureError("it is not there")
    with pytest.raises(CaptureError, match="it is not there"):
        clock.after(LOOK_S, follower)
    clock.answer = "back"
    assert clock.after(LOOK_S, follower) == "back"


def test_a_node_that_takes_its_time_is_asked_less_often(clock: Clock) -> None:
    follower = Follower(clock.file, clock.look)
    clock.publish(4)
    clock.may_answer.clear()
    assert clock.after(LOOK_S, follower) is None
    assert clock.after(2.0, follower) is None, "it has not answered yet"
    clock.may_answer.set()
    assert follower._pending is not None
    eventually(follower._pending.done, SOON_S, "the look is done")
    assert follower.news() == "status"
    clock.publish(5)
    assert clock.after(2.0 * SHARE - 1, follower) is None
    assert clock.asked == 1
    assert clock.after(1.0, follower) == "status"


def test_a_file_that_is_cut_is_no_node(clock: Clock) -> None:
    clock.file.write_bytes(bytes(8))
    assert published(clock.file) is None
