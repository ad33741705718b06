"""The TCP listener for those who only look: ``[metrics] listen``. It can move while it serves."""

import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

from aiohttp import web

from lbfwd.supervisor import log
from lbfwd.supervisor.errors import SupervisorError

BACKLOG = 128


class Listener:
    """Serves what a runner answers at one address and port, or nowhere."""

    def __init__(self, runner: web.AppRunner) -> None:
        """Listen nowhere yet; the runner is set up and cleaned up here."""
        self._runner = runner
        self._listen = ""
        self._site: web.SockSite | None = None

    @asynccontextmanager
    async def at(self, listen: str) -> AsyncIterator[None]:
        """Listen there until the end. Raises SupervisorError, which names the address."""
        await self._runner.setup()
        try:
            await self._move(listen)
            yield
        finally:
            await self._runner.cleanup()

    @asynccontextmanager
    async def moved(self, listen: str) -> AsyncIterator[None]:
        """Listen there from now on, or as before when what is done meanwhile fails.

        Raises SupervisorError, and then it listens as before.
        """
        before = self._listen
        await self._move(listen)
        try:
            yield
        except BaseException:
            await self._return(before)
            raise

    async def _move(self, listen: str) -> None:
        """Open the new place before the old one is closed, so that a refusal changes nothing."""
        if listen == self._listen:
            return
        try:
            sock = bind(listen) if listen else None
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _same_port(listen, self._listen):
                raise _refusal(listen, error) from error
            sock = await self._bind_over(listen)
        await self._leave()
        self._listen = listen
        if sock is not None:
            self._site = web.SockSite(self._runner, sock)
            await self._site.start()
            log.get().info("metrics_listening", listen=listen)

    async def _bind_over(self, listen: str) -> socket.socket:
        """Bind where our own old socket is in the way: 127.0.0.1:9108 -> 0.0.0.0:9108."""
        before = self._listen
        await self._leave()
        try:
            return bind(listen)
        except OSError as error:
            await self._return(before)
            raise _refusal(listen, error) from error

    async def _return(self, before: str) -> None:
        try:
            await self._move(before)
        except SupervisorError as error:  # somebody was quick; a scrape that fails tells it, too
            log.get().error("metrics_not_listening", reason=str(error))

    async def _leave(self) -> None:
        if self._site is not None:
            await self._site.stop()
        self._site, self._listen = None, ""


def bind(listen: str) -> socket.socket:
    """Return a listening socket for ``ADDRESS:PORT``; IPv6 in brackets. Raises OSError."""
    host, port = _parts(listen)
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        # A connection of the last run that lingers (TIME_WAIT) is no reason not to start.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        undo.pop_all()
    return sock


def _parts(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def _same_port(one: str, other: str) -> bool:
    return bool(other) and _parts(one)[1] == _parts(other)[1]


def _refusal(listen: str, error: OSError) -> SupervisorError:
    return SupervisorError(f'[metrics] listen = "{listen}": {error.strerror}')
