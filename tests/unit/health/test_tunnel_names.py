"""Names of probes: each one's own, and as late as possible another's."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from lbfwd.health.tunnel_names import Names

HERE = ip_address("127.0.0.1")
FIRST, LAST = 61000, 61009
COUNT = LAST - FIRST + 1


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def udp(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def test_a_name_is_the_port_and_comes_again_after_all_others() -> None:
    names, seen = Names(FIRST, LAST), []
    for _ in range(2 * COUNT):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            seen.append(names.bind(sock, HERE))
            assert sock.getsockname() == (str(HERE), seen[-1])
    assert sorted(seen[:COUNT]) == list(range(FIRST, LAST + 1))
    assert seen[COUNT:] == seen[:COUNT]


def test_what_an_open_socket_holds_is_passed_over_in_every_protocol(stack: ExitStack) -> None:
    names = Names(FIRST, LAST)
    held = {names.bind(udp(stack), HERE) for _ in range(COUNT - 1)}
    left = set(range(FIRST, LAST + 1)) - held
    for _ in range(3):
        with socket.socket() as stream:
            assert {names.bind(stream, HERE)} == left


def test_a_socket_that_was_forgotten_gives_its_name_back() -> None:
    names = Names(FIRST, FIRST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        names.bind(sock, HERE)
        with (
            socket.socket() as other,
            pytest.raises(OSError, match="all source ports of probes are in use: 61000 to 61000"),
        ):
            names.bind(other, HERE)
    with socket.socket() as other:
        assert names.bind(other, HERE) == FIRST


def test_another_programs_port_is_passed_over(stack: ExitStack) -> None:
    for port in range(FIRST, LAST):
        udp(stack).bind(("0.0.0.0", port))
    assert Names(FIRST, LAST).bind(udp(stack), HERE) == LAST


def test_an_address_that_is_gone_is_named(stack: ExitStack) -> None:
    with pytest.raises(OSError, match=r"source 192\.0\.2\.77: Cannot assign requested address"):
        Names(FIRST, LAST).bind(udp(stack), ip_address("192.0.2.77"))
