"""The forwarding worker: a pinned process that borrows rings and runs the packet path in C.

It takes orders from the supervisor over a channel (``lbfwd.channel``). When the supervisor is
gone it goes on forwarding with what it has.
"""

import os
import signal
import socket
from types import FrameType

from lbfwd import channel, ring


class _Forwarder:
    """A worker between its first order and its end."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders: socket.socket | None = orders
        self._worker: ring.Worker | None = None
        self._fds: dict[tuple[str, int], int] = {}
        self._busy_poll_us = 0
        self.going = False
        self.stopping = False

    def serve(self) -> None:
        while not self.stopping:
            if self.going and self._worker is not None:
                wake_fd = self._orders.fileno() if self._orders else -1
                wake = self._worker.run(wake_fd, self._busy_poll_us)
                if wake != ring.WAKE_CONTROL:
                    continue
            self._take_order()
        if self._worker is not None:
            self._worker.retire()

    def _take_order(self) -> None:
        if self._orders is None:
            raise RuntimeError("the supervisor is gone and left no rings")
        try:
            order, fds = channel.receive(self._orders)
        except (EOFError, ConnectionError):
            # Packets matter more than orders: forward on until somebody ends this process.
            self._orders.close()
            self._orders = None
            return
        answer: channel.Message = {"op": order["op"], "ok": True}
        try:
            self._obey(order, fds)
        except (OSError, ValueError, KeyError) as error:
            answer = {"op": order["op"], "error": f"{type(error).__name__}: {error}"}
        channel.send(self._orders, answer)

    def _obey(self, order: channel.Message, fds: list[int]) -> None:
        match order["op"]:
            case "hello":
                pass
            case "start":
                self._start(order, fds)
            case "add_rx" | "add_tx":
                self._add(order["op"], order["index"], ring.Geometry(**order["geometry"]), fds[0])
            case "remove_rx" | "remove_tx":
                self._remove(order["op"], order["index"])
            case "go":
                self._started.recover()
                ring.drop_capabilities()
                self.going = True
            case unknown:
                raise ValueError(f"unknown order {unknown!r}")

    @property
    def _started(self) -> ring.Worker:
        if self._worker is None:
            raise ValueError("the first order is start")
        return self._worker

    def _start(self, order: channel.Message, fds: list[int]) -> None:
        os.sched_setaffinity(0, {order["cpu"]})
        self._busy_poll_us = order["busy_poll_us"]
        self._worker = ring.Worker(order["slot"], *fds)

    def _add(self, op: str, index: int, geometry: ring.Geometry, fd: int) -> None:
        add = self._started.add_rx if op == "add_rx" else self._started.add_tx
        add(index, fd, geometry)
        self._fds[op.removeprefix("add_"), index] = fd

    def _remove(self, op: str, index: int) -> None:
        remove = self._started.remove_rx if op == "remove_rx" else self._started.remove_tx
        remove(index)
        os.close(self._fds.pop((op.removeprefix("remove_"), index)))


def main(orders: socket.socket) -> None:
    """Run a worker until SIGTERM. The target of the supervisor's multiprocessing (spawn)."""
    forwarder = _Forwarder(orders)

    def stop(_number: int, _frame: FrameType | None) -> None:
        forwarder.stopping = True
        if not forwarder.going:
            raise SystemExit(0)  # it waits for an order, not for packets

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the supervisor
    forwarder.serve()
