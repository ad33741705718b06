"""The arena: a file in which generations and tables live, and the allocator over it.

Written with pwrite, never through a mapping: a full file system is then an OSError (ENOSPC), not
a SIGBUS.
"""

import bisect
import errno
import mmap
import os

from lbfwd.shared import ARENA_MOST, UNIT, aligned

_FIRST_BYTES = 1 << 20


class Arena:
    """First-fit allocation of 64-byte units; the first unit stays free (offset 0 is "none")."""

    def __init__(self, fd: int) -> None:
        """Use an empty file."""
        self.fd = fd
        self.size = _FIRST_BYTES
        os.ftruncate(fd, self.size)
        self._free: list[tuple[int, int]] = [(UNIT, self.size - UNIT)]  # offset, size; ascending
        self._used: dict[int, int] = {}
        self._map: mmap.mmap | None = None

    def store(self, data: bytes | memoryview) -> int:
        """Write data somewhere and return its offset. Raises OSError; then nothing is allocated."""
        offset = self.reserve(len(data))
        try:
            self.write(offset, data)
        except OSError:
            self.free(offset)
            raise
        return offset

    def reserve(self, size: int) -> int:
        """Allocate without writing; returns the offset."""
        size = max(UNIT, aligned(size))
        for place, (offset, room) in enumerate(self._free):
            if room >= size:
                self._free[place : place + 1] = (
                    [(offset + size, room - size)] if room > size else []
                )
                self._used[offset] = size
                return offset
        self._grow(size)
        return self.reserve(size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write to an allocated place."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            view, offset = view[written:], offset + written

    def mapped(self) -> mmap.mmap:
        """Return all of the arena, to be read; as it is until the arena grows."""
        if self._map is None or len(self._map) != self.size:
            self.unmap()
            self._map = mmap.mmap(self.fd, self.size, prot=mmap.PROT_READ)
        return self._map

    def unmap(self) -> None:
        """Let go of what ``mapped`` returned."""
        if self._map is not None:
            self._map.close()
        self._map = None

    def free(self, offset: int) -> None:
        """Give back what ``store`` or ``reserve`` returned."""
        size = self._used.pop(offset)
        at = bisect.bisect(self._free, (offset, 0))
        if at < len(self._free) and self._free[at][0] == offset + size:
            size += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == offset:
            at -= 1
            before, room = self._free.pop(at)
            offset, size = before, room + size
        self._free.insert(at, (offset, size))

    def _grow(self, size: int) -> None:
        old = self.size
        if old + size > ARENA_MOST:
            raise OSError(errno.ENOSPC, f"the arena cannot become larger than {ARENA_MOST} bytes")
        new = min(max(2 * old, old + size), ARENA_MOST)
        os.ftruncate(self.fd, new)
        self.size = new
        self._used[old] = new - old
        self.free(old)
