"""The allocator as a state machine: nothing overlaps, nothing is lost, what is written stays."""

import errno
import os
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from lbfwd.arena import Arena

UNIT = 64
FIRST = 1 << 20
# Of all sizes, and some that are larger than what is left.
SIZES = st.one_of(st.integers(0, 1000), st.integers(60_000, 70_000), st.integers(0, 3 * FIRST))


class Allocations(RuleBasedStateMachine):
    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed in teardown
        self.arena = Arena(self.file.fileno())
        self.held: dict[int, bytes] = {}
        self.serial = 0

    def teardown(self) -> None:
        for offset in list(self.held):
            self.arena.free(offset)
        everything = self.arena.reserve(self.arena.size - UNIT)
        assert everything == UNIT, "all memory came back as one piece"
        assert self.arena.size == os.fstat(self.file.fileno()).st_size
        self.file.close()

    @rule(target=places, size=SIZES)
    def store(self, size: int) -> int:
        self.serial += 1
        data = self.serial.to_bytes(8, "little") * (size // 8) + bytes(size % 8)
        offset = self.arena.store(data)
        self._take(offset, data)
        return offset

    @rule(target=places, size=SIZES, seed=st.binary(min_size=1, max_size=8))
    def reserve_then_write(self, size: int, seed: bytes) -> int:
        offset = self.arena.reserve(size)
        data = (seed * size)[:size]
        self.arena.write(offset, data)
        self._take(offset, data)
        return offset

    @rule(offset=consumes(places))
    def free(self, offset: int) -> None:
        self._verify(offset)
        del self.held[offset]
        self.arena.free(offset)

    def _take(self, offset: int, data: bytes) -> None:
        assert offset % UNIT == 0
        assert offset >= UNIT, "offset 0 means none"
        assert offset not in self.held
        self.held[offset] = data

    def _verify(self, offset: int) -> None:
        data = self.held[offset]
        assert os.pread(self.file.fileno(), len(data), offset) == data

    @invariant()
    def nothing_overlaps(self) -> None:
        end = UNIT
        for offset, data in sorted(self.held.items()):
            assert offset >= end
            end = offset + max(len(data), 1)
        assert end <= self.arena.size

    @invariant()
    def what_was_written_stays(self) -> None:
        for offset in list(self.held)[:3]:
            self._verify(offset)


TestAllocations = Allocations.TestCase
TestAllocations.settings = settings(max_examples=60, stateful_step_count=40)


def test_freed_memory_is_used_again() -> None:
    with tempfile.TemporaryFile() as file:
        arena = Arena(file.fileno())
        for _ in range(200):
            arena.free(arena.store(bytes(FIRST // 2)))
        assert arena.size == FIRST


def test_growth_keeps_what_is_there() -> None:
    with tempfile.TemporaryFile() as file:
        arena = Arena(file.fileno())
        first = arena.store(b"first" * 100)
        large = arena.store(bytes(5 * FIRST))
        assert os.pread(file.fileno(), 500, first) == b"first" * 100
        assert large > first
        assert arena.size >= 6 * FIRST


def test_a_full_file_system_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with tempfile.TemporaryFile() as file:
        arena = Arena(file.fileno())
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="No space left"):
                arena.store(bytes(1000))
        assert arena.reserve(FIRST - UNIT) == UNIT


def test_short_writes_are_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    with tempfile.TemporaryFile() as file:
        arena = Arena(file.fileno())
        data = bytes(range(256)) * 4
        monkeypatch.setattr(os, "pwrite", lambda fd, view, at: write(fd, view[:100], at))
        offset = arena.store(data)
        assert os.pread(file.fileno(), len(data), offset) == data


def test_a_place_is_given_back_once() -> None:
    with tempfile.TemporaryFile() as file:
        arena = Arena(file.fileno())
        offset = arena.store(b"x")
        arena.free(offset)
        with pytest.raises(KeyError):
            arena.free(offset)


def test_it_does_not_become_larger_than_workers_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbfwd.arena.ARENA_MOST", 3 * FIRST)
    with tempfile.TemporaryFile() as file:
        arena = Arena(file.fileno())
        with pytest.raises(OSError, match=f"cannot become larger than {3 * FIRST} bytes") as caught:
            arena.store(bytes(3 * FIRST))
        assert caught.value.errno == errno.ENOSPC
        assert arena.size == FIRST
        arena.store(bytes(2 * FIRST))
        arena.store(bytes(FIRST // 2))
        assert arena.size == 3 * FIRST


def test_what_is_mapped_follows_its_growth() -> None:
    with tempfile.TemporaryFile() as file:
        arena = Arena(file.fileno())
        first = arena.store(b"first")
        assert arena.mapped()[first : first + 5] == b"first"
        second = arena.store(b"2" * 3 * FIRST)
        assert arena.mapped()[second : second + 3] == b"222"
        arena.unmap()
