"""Who registered is asked for a token, and only what brings it back counts."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest
from scapy.packet import Raw

from lbfwd.fleet.merge import merge
from lbfwd.health import echo, probe_token
from lbfwd.health.judge import standings
from lbfwd.health.outcome import PASSED
from lbfwd.health.question import Question, Token, questions
from lbfwd.health.standing import Standing
from lbfwd.health.verdict import Verdict
from lbfwd.supervisor.registry import Saying
from tests.unit.fleet.test_merge import CONFIG, said

CONFIG_A = merge(CONFIG, {("web", "a"): said("10.0.0.12")}).config
KEY = ("web", "a")
VIP = ip_address("192.0.2.10")
TOKEN = bytes(range(16))


def reply(name: int, sequence: int, payload: bytes) -> bytes:
    message = ICMP(type=0, id=name, seq=sequence) / Raw(payload)
    return bytes(IP(src="192.0.2.10", dst="10.0.0.1") / message)


def test_only_registered_backends_are_asked_for_a_token() -> None:
    found = questions(CONFIG_A)
    assert found["web", "fixed"] == ()
    (question,) = found[KEY]
    assert (str(question.target), str(question.backend)) == ("10.0.0.99", "10.0.0.12")
    assert question.ask == Token()
    assert str(question) == "token 10.0.0.99 through the tunnel to 10.0.0.12"


def test_the_request_is_an_echo_request_with_the_token() -> None:
    found = ICMP(echo.message(4, 61000, 0, TOKEN))
    assert (found.type, found.code, found.id, found.seq) == (8, 0, 61000, 0)
    assert bytes(found.payload) == TOKEN
    assert bytes(ICMP(type=8, id=61000, seq=0) / Raw(TOKEN)) == echo.message(4, 61000, 0, TOKEN)
    six = echo.message(6, 61000, 0, TOKEN)
    assert bytes(ICMPv6EchoRequest(id=61000, seq=0, cksum=0, data=TOKEN)) == six


@pytest.mark.parametrize(
    ("data", "brings"),
    [
        (reply(61000, 0, TOKEN), True),
        (reply(61000, 0, TOKEN[::-1]), False),
        (reply(61000, 0, TOKEN[:-1]), False),
        (reply(61000, 0, TOKEN + b"x"), False),
        (reply(61000, 0, b""), False),
        (reply(61001, 0, TOKEN), False),
        (reply(61000, 1, TOKEN), False),
        (b"", False),
        (reply(61000, 0, TOKEN)[:24], False),
    ],
)
def test_only_the_token_itself_counts(data: bytes, brings: bool) -> None:
    assert echo.brings(4, data, 61000, 0, TOKEN) is brings


def test_replies_over_ipv6_have_no_header() -> None:
    data = bytes(ICMPv6EchoReply(id=7, seq=0, cksum=0, data=TOKEN))
    assert echo.brings(6, data, 7, 0, TOKEN)
    assert not echo.brings(6, data, 8, 0, TOKEN)


class Pair:
    """Stands for the tunnel: a pair of sockets, and somebody at the other end."""

    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self._answers = answers

    def bind(self, kind: socket.SocketKind) -> socket.socket:
        return self.bind_named(kind)[0]

    def bind_named(self, kind: socket.SocketKind) -> tuple[socket.socket, int]:
        assert kind == socket.SOCK_RAW
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        return Named(ours, self), 61000  # type: ignore[return-value]


class Named:
    """A socket that can be "connected"; what is sent is answered at once."""

    def __init__(self, sock: socket.socket, pair: Pair) -> None:
        self.sock, self.pair = sock, pair
        self.fileno, self.gettimeout, self.recv = sock.fileno, sock.gettimeout, sock.recv

    def __enter__(self) -> "Named":
        return self

    def __exit__(self, *_details: object) -> None:
        self.sock.close()
        self.pair.theirs.close()

    def connect(self, _to: object) -> None:
        pass

    def send(self, data: bytes) -> None:
        for answer in self.pair._answers(data):
            self.pair.theirs.send(answer)


QUESTION = Question(VIP, 0, ip_address("10.0.0.12"), Token(), 1000, 1000)


def test_the_probe_passes_when_its_token_is_back_and_is_new_each_time() -> None:
    tokens: list[bytes] = []

    def answers(data: bytes) -> list[bytes]:
        kind, _code, _sum, name, sequence = struct.unpack_from("!BBHHH", data)
        assert kind == 8
        tokens.append(data[8:])
        wrong = reply(name, sequence, bytes(16))
        return [wrong, reply(name + 1, sequence, data[8:]), reply(name, sequence, data[8:])]

    for _ in range(2):
        assert asyncio.run(probe_token.ask(QUESTION, Pair(answers))) == PASSED
    assert {len(token) for token in tokens} == {16}
    assert tokens[0] != tokens[1]


def test_what_is_made_up_never_passes() -> None:
    async def main() -> None:
        async with asyncio.timeout(0.05):
            await probe_token.ask(QUESTION, Pair(lambda _data: [reply(61000, 0, bytes(16))]))

    with pytest.raises(TimeoutError):
        asyncio.run(main())


# ---- what is made of it: pool "web" has no check of its own

GOOD = Verdict(True, 1.0, 0.0, PASSED, "")
BAD = Verdict(False, 1.0, 1.0, PASSED, "token: no answer within 1000 ms")


def judged(mode: str = "", verdict: Verdict | None = GOOD) -> Standing:
    says = {KEY: Saying(mode, 5.0)} if mode else {}  # type: ignore[arg-type]
    verdicts = {KEY: verdict} if verdict else {}
    return standings(CONFIG_A, verdicts, {}, says, {}, 9.0)[KEY]


@pytest.mark.parametrize("mode", ["paused", "gone"])
def test_paused_and_gone_ones_keep_their_flows_while_their_probes_pass(mode: str) -> None:
    good, bad = judged(mode), judged(mode, BAD)
    assert (good.condition, good.weight, good.serves, good.since) == (mode, 0, True, 5.0)
    assert (bad.condition, bad.weight, bad.serves) == (mode, 0, False)


def test_joining_ones_get_nothing_also_when_the_pool_fails_open() -> None:
    found = judged("joining", BAD)
    assert (found.condition, found.weight, found.serves) == ("joining", 0, False)
    assert found.reason.endswith("yet; token: no answer within 1000 ms")
    alone = CONFIG_A.pools[0].model_copy(update={"backends": CONFIG_A.pools[0].backends[1:]})
    config = CONFIG_A.model_copy(update={"pools": (alone,)})
    says = {KEY: Saying("joining", 5.0)}
    assert standings(config, {KEY: BAD}, {}, says, {}, 9.0)[KEY].serves is False


def test_once_proven_the_token_goes_on_deciding() -> None:
    assert (judged().condition, judged().weight, judged().serves) == ("up", 1, True)
    assert judged(verdict=BAD).condition == "down"
    assert judged(verdict=None).condition == "checking"
    assert replace(judged(), since=0.0) == Standing("up", 1, True, "", 0.0)
