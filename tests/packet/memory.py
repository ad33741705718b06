"""The published state as C sees it, open to change: for states that ``Tables`` never publishes."""

import mmap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lbfwd._ringlib import ffi

from lbfwd.tables import Tables


class Published:
    """The snapshot in force, its rows, and the control file; all writable."""

    def __init__(self, control: Any, arena: Any) -> None:
        self.arena = arena
        self._arena = ffi.from_buffer(arena, require_writable=True)
        self._control = ffi.from_buffer(control, require_writable=True)
        self.arena_bytes = len(self._arena)
        self.control = ffi.cast("struct lbfwd_control *", self._control)
        self.offset = (self.control.published & 0xFFFFFFFF) * 64
        self.snapshot = self.at("struct lbfwd_snapshot", self.offset)
        self.vips = self.at("struct lbfwd_vip", self.snapshot.vips_offset)
        self.services = self.at("struct lbfwd_service", self.snapshot.services_offset)
        self.backends = self.at("struct lbfwd_backend", self.snapshot.backends_offset)
        self.peer = self.at("struct lbfwd_peer", self.snapshot.peers_offset)  # the first
        self.peer_path = self.at("struct lbfwd_path", self.snapshot.peer_paths_offset)
        self.paths = self.at("struct lbfwd_path", 0)  # backends point to them from here

    def at(self, kind: str, offset: int) -> Any:
        return ffi.cast(f"{kind} *", self._arena + offset)

    @property
    def service(self) -> Any:
        """The first service in the look-up table."""
        rows = (self.services[n] for n in range(self.snapshot.service_slots))
        return next(row for row in rows if row.protocol)

    @property
    def path(self) -> Any:
        """The first path of a backend that has one."""
        rows = (self.backends[n] for n in range(self.snapshot.backends))
        return self.paths[next(row.path_first for row in rows if row.path_count)]

    def publish_again(self) -> None:
        """The same place as another generation: workers look at it anew."""
        self.control.published += 1 << 32

    def release(self) -> None:
        ffi.release(self._arena)
        ffi.release(self._control)


@contextmanager
def published(tables: Tables) -> Iterator[Published]:
    control_fd, arena_fd, *_others = tables.files()
    with ExitStack() as stack:
        control = stack.enter_context(mmap.mmap(control_fd, 0))
        arena = stack.enter_context(mmap.mmap(arena_fd, 0))
        view = Published(control, arena)
        stack.callback(view.release)
        yield view
