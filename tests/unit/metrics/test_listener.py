"""The listener on real sockets of the loopback interface."""

import asyncio
import http.client
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web

from lbfwd.metrics.listener import Listener, bind
from lbfwd.supervisor.errors import SupervisorError


@contextmanager
def port_taken(host: str = "127.0.0.1") -> Iterator[int]:
    with bind(f"{host}:0") as sock:
        yield sock.getsockname()[1]


def free_port(host: str = "127.0.0.1") -> int:
    with port_taken(host) as port:
        return port


def ask(port: int, host: str = "127.0.0.1") -> str:
    connection = http.client.HTTPConnection(host, port, timeout=20)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


async def answers(port: int, host: str = "127.0.0.1") -> bool:
    try:
        return await asyncio.to_thread(ask, port, host) == "here"
    except ConnectionRefusedError:
        return False


def listener() -> Listener:
    async def here(_request: web.Request) -> web.Response:
        return web.Response(text="here")

    application = web.Application()
    application.router.add_get("/", here)
    return Listener(web.AppRunner(application, shutdown_timeout=1))


def serve(listen: str, test: Callable[[Listener], Awaitable[None]]) -> None:
    async def whole() -> None:
        one = listener()
        async with one.at(listen):
            await test(one)

    asyncio.run(whole())


def test_it_answers_where_it_is_told_to_and_is_gone_afterwards() -> None:
    port = free_port()

    async def test(_one: Listener) -> None:
        assert await answers(port)

    serve(f"127.0.0.1:{port}", test)
    serve(f"127.0.0.1:{port}", test)  # its own old connections are no obstacle
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_ipv6() -> None:
    port = free_port("[::1]")

    async def test(_one: Listener) -> None:
        assert await answers(port, "::1")

    serve(f"[::1]:{port}", test)


def test_a_taken_port_is_named() -> None:
    async def test(_one: Listener) -> None:
        pytest.fail("it listens")

    with (
        port_taken() as port,
        pytest.raises(SupervisorError, match=rf'^\[metrics\] listen = "127\.0\.0\.1:{port}": '),
    ):
        serve(f"127.0.0.1:{port}", test)


def test_an_address_of_another_machine_is_named() -> None:
    async def test(_one: Listener) -> None:
        pytest.fail("it listens")

    with pytest.raises(SupervisorError, match=r'listen = "203\.0\.113\.1:9108": Cannot assign'):
        serve("203.0.113.1:9108", test)


@pytest.mark.parametrize("first", ["127.0.0.1", ""])
def test_it_moves(first: str) -> None:
    old, new = free_port(), free_port()

    async def test(one: Listener) -> None:
        async with one.moved(f"127.0.0.1:{new}"):
            pass
        assert await answers(new)
        assert not await answers(old)
        async with one.moved(""):
            pass
        assert not await answers(new)

    serve(f"{first}:{old}" if first else "", test)


@pytest.mark.parametrize(
    ("old", "new"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "[::]")]
)
def test_it_moves_to_an_address_that_its_own_old_socket_covers(old: str, new: str) -> None:
    port = free_port()

    async def test(one: Listener) -> None:
        async with one.moved(f"{new}:{port}"):
            pass
        assert await answers(port)

    serve(f"{old}:{port}", test)


def test_what_cannot_be_had_leaves_it_where_it_is() -> None:
    with port_taken() as taken:
        port = free_port()

        async def test(one: Listener) -> None:
            with pytest.raises(SupervisorError, match=rf"127\.0\.0\.1:{taken}"):
                async with one.moved(f"127.0.0.1:{taken}"):
                    pytest.fail("it has moved")
            assert await answers(port)

        serve(f"127.0.0.1:{port}", test)


def test_a_refused_address_on_the_same_port_leaves_it_where_it_is() -> None:
    with port_taken("127.0.0.2") as port:

        async def test(one: Listener) -> None:
            with pytest.raises(SupervisorError, match=rf"0\.0\.0\.0:{port}"):
                async with one.moved(f"0.0.0.0:{port}"):
                    pytest.fail("it has moved")
            assert await answers(port)

        serve(f"127.0.0.1:{port}", test)


@pytest.mark.parametrize("new", ["127.0.0.1", "0.0.0.0"])
def test_it_goes_back_when_what_is_done_meanwhile_fails(new: str) -> None:
    old = free_port()
    port = old if new == "0.0.0.0" else free_port()

    async def test(one: Listener) -> None:
        with pytest.raises(OSError, match="in between"):
            async with one.moved(f"{new}:{port}"):
                raise OSError("in between")
        assert await answers(old)
        if port != old:
            assert not await answers(port)
        else:  # it is 127.0.0.1 alone again
            with socket.create_server(("127.0.0.2", port)):
                pass

    serve(f"127.0.0.1:{old}", test)
