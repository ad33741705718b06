"""What is asked of whom; equal questions are one."""

from lbfwd.config import parse
from lbfwd.health.question import Dns, Http, Question, Tcp, Udp, questions

HEAD = f"""
hash_key = "{"ab" * 16}"
[node]
interfaces = ["eth0"]
[workers]
cpus = [0]
"""


def pool(name: str, health: str, *addresses: str) -> str:
    backends = ", ".join(f'{{ address = "{address}" }}' for address in addresses)
    return f'[[pool]]\nname = "{name}"\nbackends = [{backends}]\n[pool.health]\n{health}\n'


def service(vip: str, of: str, port: int | None = 80, protocol: str = "tcp") -> str:
    extra = f"port = {port}\n" if port else ""
    return f'[[service]]\nvip = "{vip}"\nprotocol = "{protocol}"\npool = "{of}"\n{extra}'


def asked(*parts: str) -> dict[tuple[str, str], tuple[Question, ...]]:
    return questions(parse(HEAD + "".join(parts), "f"))


def test_nothing_is_asked_without_a_check() -> None:
    found = asked(pool("p", 'type = "none"', "10.0.0.1"), service("192.0.2.1", "p"))
    assert found == {}


def test_through_the_tunnel_every_vip_is_asked_once() -> None:
    found = asked(
        pool("p", 'type = "tcp"', "10.0.0.1", "fd00::1"),
        service("192.0.2.1", "p"),
        service("192.0.2.1", "p", protocol="udp"),
        service("2001:db8::1", "p"),
    )
    for backend in ("10.0.0.1", "fd00::1"):
        several = found["p", backend]
        assert [(str(q.target), q.port, str(q.backend)) for q in several] == [
            ("192.0.2.1", 80, backend),
            ("2001:db8::1", 80, backend),
        ]
        assert {q.ask for q in several} == {Tcp()}


def test_directly_the_backend_is_asked_and_pools_share_the_question() -> None:
    health = 'type = "http"\nvia = "direct"\nport = 8080\npath = "/h"'
    found = asked(
        pool("one", health, "10.0.0.1", "10.0.0.2"),
        pool("two", health + "\nrise = 7\nhold_down_s = 1", "10.0.0.1"),
        pool("three", health + '\nhost = "h"', "10.0.0.1"),
        service("192.0.2.1", "one"), service("192.0.2.2", "two"), service("192.0.2.3", "three"),
    )  # fmt: skip
    (first,) = found["one", "10.0.0.1"]
    assert (str(first.target), first.port, first.backend) == ("10.0.0.1", 8080, None)
    assert found["two", "10.0.0.1"][0] is first
    assert found["three", "10.0.0.1"][0] != first
    assert len({q for several in found.values() for q in several}) == 3


def test_how_often_and_how_long_belong_to_the_question() -> None:
    health = 'type = "tcp"\nvia = "direct"\nport = 1\n'
    found = asked(
        pool("one", health, "10.0.0.1"),
        pool("two", health + "interval_ms = 500", "10.0.0.1"),
        pool("three", health + "timeout_ms = 500", "10.0.0.1"),
    )
    assert len({q for several in found.values() for q in several}) == 3


def test_what_the_keys_become() -> None:
    https = 'type = "https"\nhost = "www.example.com:8443"\nstatus = [200, "301-302"]\nbody = "ok"'
    found = asked(
        pool("h", https, "10.0.0.1"), service("192.0.2.1", "h", 443),
        pool("6", 'type = "https"\nhost = "[::1]:1"\nverify = false', "10.0.0.1"),
        service("192.0.2.6", "6", 443),
        pool("d", 'type = "dns"\nquery = "example.com."\nquery_type = "AAAA"\nrcode = "refused"',
             "10.0.0.1"), service("192.0.2.2", "d", 53, "udp"),
        pool("u", 'type = "udp"\npayload = "hex:00ff"\nexpect = "pong"', "10.0.0.1"),
        service("192.0.2.3", "u", 99, "udp"),
    )  # fmt: skip
    asks = {name: several[0].ask for (name, _), several in found.items()}
    assert asks == {
        "h": Http("/", "www.example.com:8443", ((200, 200), (301, 302)), b"ok", True,
                  "www.example.com", True),
        "6": Http("/", "[::1]:1", ((200, 299),), b"", True, "::1", False),
        "d": Dns("example.com", 28, 5),
        "u": Udp(b"\x00\xff", b"pong"),
    }  # fmt: skip
    assert found["d", "10.0.0.1"][0].port == 53


def test_a_question_names_itself_for_people() -> None:
    found = asked(
        pool("p", 'type = "tcp"', "10.0.0.1"), service("2001:db8::1", "p"),
        pool("q", 'type = "udp"\nvia = "direct"\nport = 7', "10.0.0.1"),
    )  # fmt: skip
    assert [str(several[0]) for several in found.values()] == [
        "tcp [2001:db8::1]:80 through the tunnel to 10.0.0.1",
        "udp 10.0.0.1:7",
    ]
