import os
import socket
from collections.abc import Iterator

import pytest

from lbfwd import channel

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    supervisor, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor.settimeout(10)
    worker.settimeout(10)
    with supervisor, worker:
        yield supervisor, worker


def test_a_message_arrives_as_it_was(pair: Pair) -> None:
    message = {"op": "start", "slot": 3, "cpu": 1, "busy_poll_us": 0, "text": "Grüße\n\0"}
    channel.send(pair[0], message)
    assert channel.receive(pair[1]) == (message, [])


def test_messages_keep_their_bounds_and_their_order(pair: Pair) -> None:
    for number in range(50):
        channel.send(pair[0], {"op": "add_tx", "index": number})
    assert [channel.receive(pair[1])[0]["index"] for _ in range(50)] == list(range(50))


def test_both_sides_may_talk(pair: Pair) -> None:
    channel.send(pair[0], {"op": "go"})
    channel.send(pair[1], {"op": "go", "ok": True})
    assert channel.receive(pair[0])[0] == {"op": "go", "ok": True}
    assert channel.receive(pair[1])[0] == {"op": "go"}


@pytest.mark.parametrize("count", [1, 3, channel.MAX_DESCRIPTORS])
def test_descriptors_come_along_in_order(pair: Pair, count: int) -> None:
    pipes = [os.pipe() for _ in range(count)]
    channel.send(pair[0], {"op": "start"}, [reader for reader, _writer in pipes])
    for reader, _writer in pipes:
        os.close(reader)
    message, received = channel.receive(pair[1])
    assert (message, len(received)) == ({"op": "start"}, count)
    for number, (fd, (_reader, writer)) in enumerate(zip(received, pipes, strict=True)):
        os.write(writer, bytes([number]))
        assert os.read(fd, 9) == bytes([number])
        os.close(fd)
        os.close(writer)


def test_the_other_side_is_gone(pair: Pair) -> None:
    channel.send(pair[0], {"op": "go"})
    pair[0].close()
    assert channel.receive(pair[1])[0] == {"op": "go"}, "what was sent before still arrives"
    with pytest.raises(EOFError, match="the other side of the channel is gone"):
        channel.receive(pair[1])
    with pytest.raises(BrokenPipeError):
        channel.send(pair[1], {"op": "go", "ok": True})


def test_the_largest_message(pair: Pair) -> None:
    message = {"op": "go", "error": "x" * (channel.MAX_MESSAGE - 30)}
    channel.send(pair[0], message)
    assert channel.receive(pair[1])[0] == message
