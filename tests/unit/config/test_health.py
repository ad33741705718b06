"""[pool.health], min_healthy, all_down, slow_start_s, [metrics], [admin]: what is accepted."""

from math import ceil
from typing import Any

import pytest

from lbfwd.config import rules_health
from lbfwd.config.document import tables
from lbfwd.config.hardware import Hardware
from lbfwd.config.health import least_healthy
from lbfwd.config.warn import warnings
from tests.unit.config.samples import FILE, GOOD, accepted, change, refused

AT = 'pool "web".health.'


def health(*lines: str) -> str:
    return change("[[service]]", "\n".join(("[pool.health]", *lines, "[[service]]")))


def test_defaults() -> None:
    check = accepted(health('type = "http"')).pools[0].health
    assert (check.via, check.port, check.interval_ms, check.timeout_ms) == (
        "tunnel", None, 2000, 1000,
    )  # fmt: skip
    assert (check.rise, check.fall, check.hold_down_s, check.mtu_check_s) == (2, 3, 10, 60)
    assert (check.path, check.host, check.status, check.body) == ("/", "", ("200-299",), "")
    pool = accepted(GOOD).pools[0]
    assert (pool.min_healthy, pool.all_down, pool.slow_start_s) == ("0", "fail_open", 0)
    assert accepted(GOOD).metrics.listen == "127.0.0.1:9108"
    assert accepted(GOOD).admin.group == ""


@pytest.mark.parametrize(
    "lines",
    [
        ('type = "none"', "rise = 1", 'path = "/left/over"'),
        ('type = "tcp"', 'via = "direct"', "port = 65535"),
        ('type = "http"', 'status = [200, "301-302", "204"]', 'body = "ok"', 'host = "[::1]:80"'),
        ('type = "https"', "verify = false"),
        ('type = "https"', 'host = "www.example.com"'),
        ('type = "https"', 'sni = "www.example.com"'),
        ('type = "dns"', 'query = "."', 'rcode = "refused"'),
        ('type = "dns"', 'query = "_sip._udp.example.com."', 'query_type = "SRV"'),
        ('type = "udp"', 'payload = "hex:00FF"', 'expect = "hex:"'),
    ],
)
def test_good_ones(lines: tuple[str, ...]) -> None:
    assert accepted(health(*lines))


@pytest.mark.parametrize(
    ("lines", "key", "value", "rule"),
    [
        (("rise = 1",), "type", "(missing)", "required"),
        (('type = "tcp"', 'via = "vpn"'), "via", '"vpn"', '"tunnel" or "direct"'),
        (('type = "tcp"', "port = 0"), "port", "0", "from 1 to 65535"),
        (('type = "tcp"', "rise = 0"), "rise", "0", "from 1 to 100"),
        (('type = "tcp"', "interval_ms = 99"), "interval_ms", "99", "from 100"),
        (('type = "tcp"', "timeout_ms = 1.5"), "timeout_ms", "1.5", "a whole number"),
        (('type = "tcp"', 'path = "/"'), "path", '"/"', 'no effect with type = "tcp"'),
        (('type = "http"', "verify = true"), "verify", "true", "a key of https"),
        (('type = "http"', 'path = "x"'), "path", '"x"', "begins with /"),
        (('type = "http"', 'path = "/a b"'), "path", '"/a b"', "visible ASCII"),
        (('type = "http"', "status = []"), "status", "[]", "cannot be empty"),
        (('type = "http"', "status = [99]"), "status[0]", "99", "from 100 to 599"),
        (('type = "http"', 'status = ["300-200"]'), "status[0]", '"300-200"', "from 100"),
        (('type = "http"', 'host = "a b"'), "host", '"a b"', "a host name"),
        (('type = "https"',), "sni", "(missing)", "required with verify = true"),
        (('type = "https"', 'sni = "a:1/"'), "sni", '"a:1/"', "without a port"),
        (('type = "dns"',), "query", "(missing)", "required"),
        (('type = "dns"', 'query = "a..b"'), "query", '"a..b"', "a domain name"),
        (('type = "dns"', f'query = "{"a" * 64}.b"'), "query", f'"{"a" * 64}.b"', "63"),
        (('type = "udp"', 'expect = "x"'), "payload", "(missing)", "nobody answers unasked"),
        (('type = "udp"', 'payload = "hex:0"'), "payload", '"hex:0"', "an even number"),
        (('type = "tcp"', 'via = "direct"', "mtu_check_s = 1"), "mtu_check_s", "1", "no effect"),
    ],
)
def test_bad_ones(lines: tuple[str, ...], key: str, value: str, rule: str) -> None:
    (problem,) = refused(health(*lines))
    shown = value if len(value) < 24 else problem.value  # long hex digits are hidden
    assert (problem.key, problem.value) == (AT + key, shown)
    assert rule in problem.rule


def test_a_tunnel_needs_a_vip() -> None:
    text = health('type = "tcp"', "port = 80")
    (problem,) = refused(text[: text.index("[[service]]")])
    assert (problem.key, problem.value) == (AT + "via", '"tunnel"')
    assert "no service uses this pool" in problem.rule
    direct = health('type = "tcp"', 'via = "direct"', "port = 80")
    accepted(direct[: direct.index("[[service]]")])
    # What is a mistake elsewhere is told there, and only there.
    (problem,) = refused(health('type = "tcp"').replace('pool = "web"', 'pool = "wep"'))
    assert problem.key == 'service "web".pool'


def test_the_port_is_that_of_the_services_where_they_agree() -> None:
    another = '[[service]]\nvip = "192.0.2.11"\nprotocol = "udp"\npool = "web"\n'
    accepted(health('type = "tcp"') + another + "port = 80\n")
    for port in ("port = 81\n", ""):
        (problem,) = refused(health('type = "tcp"') + another + port)
        assert (problem.key, problem.value) == (AT + "port", "(missing)")
        assert "say which is probed" in problem.rule
        accepted(health('type = "tcp"', "port = 80") + another + port)


@pytest.mark.parametrize("good", ["0", "2", '"0%"', '"50%"', '"100%"'])
def test_min_healthy(good: str) -> None:
    pool = accepted(change("backends", f"min_healthy = {good}\nbackends")).pools[0]
    assert pool.min_healthy == good.strip('"')


@pytest.mark.parametrize(
    ("bad", "rule"),
    [("-1", "a number"), ('"101%"', "a percentage"), ('"50"', "a percentage"), ("1.5", "a number"),
     ("true", "a number"), ("3", "the pool has 2 backends")],
)  # fmt: skip
def test_bad_min_healthy(bad: str, rule: str) -> None:
    (problem,) = refused(change("backends", f"min_healthy = {bad}\nbackends"))
    assert (problem.key, problem.value) == ('pool "web".min_healthy', bad)
    assert rule in problem.rule


def test_how_many_a_percentage_is() -> None:
    for count in range(1, 40):
        for percent in range(101):
            assert least_healthy(f"{percent}%", count) == ceil(round(count * percent / 100, 9))
    assert [least_healthy("3", count) for count in (1, 3, 5)] == [1, 3, 3]


@pytest.mark.parametrize("good", ["127.0.0.1:9108", "[::1]:1", "0.0.0.0:65535", ""])
def test_listen(good: str) -> None:
    assert accepted(GOOD + f'[metrics]\nlisten = "{good}"\n').metrics.listen == good


@pytest.mark.parametrize(
    "bad", ["localhost:1", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:9108", "[1.2.3.4]:1"]
)
def test_bad_listen(bad: str) -> None:
    (problem,) = refused(GOOD + f'[metrics]\nlisten = "{bad}"\n')
    assert (problem.key, problem.value) == ("metrics.listen", f'"{bad}"')
    assert "an address and a port" in problem.rule


@pytest.mark.parametrize(("bad", "shown"), [('"a b"', '"a b"'), ("1", "1"), ('"-x"', '"-x"')])
def test_bad_group(bad: str, shown: str) -> None:
    (problem,) = refused(GOOD + f"[admin]\ngroup = {bad}\n")
    assert (problem.key, problem.value) == ("admin.group", shown)
    assert accepted(GOOD + '[admin]\ngroup = "wheel"\n').admin.group == "wheel"


def warned(text: str) -> list[tuple[str, str, str]]:
    found = warnings(
        accepted(text), FILE, local=(), shares=lambda *_: (32769, 32768), hardware=Hardware()
    )
    return [(p.key, p.value, p.rule) for p in found]


def test_a_timeout_longer_than_the_interval_finds_failures_late() -> None:
    ((key, value, rule),) = warned(health('type = "tcp"', "interval_ms = 500", "fall = 4"))
    assert (key, value) == (AT + "timeout_ms", "1000")
    assert "out only after 4000 ms" in rule
    assert warned(health('type = "tcp"', "interval_ms = 1000")) == []


def test_min_healthy_of_all_backends_takes_none_out() -> None:
    text = health('type = "tcp"').replace("backends", 'min_healthy = "51%"\nbackends')
    ((key, _, rule),) = warned(text)
    assert key == 'pool "web".min_healthy'
    assert "every one of 2 backends" in rule


def test_too_many_probes() -> None:
    vips = "".join(
        f'[[service]]\nvip = "192.0.{n >> 8}.{n & 255}"\n'
        'protocol = "tcp"\nport = 80\npool = "web"\n'
        for n in range(768, 868)
    )
    checks = health('type = "tcp"', "interval_ms = 100", "timeout_ms = 100")
    ((key, _, rule),) = warned(checks + vips)
    assert key == "pool"
    assert "2020 probes a second" in rule
    assert warned(checks) == []


def test_services_are_gone_through_once_however_many_pools_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = '[[pool]]\nname = "p{0}"\nbackends = [{{ address = "10.1.0.{0}" }}]\n'
    service = '[[service]]\nvip = "198.51.100.{0}"\nprotocol = "tcp"\nport = 80\npool = "p{0}"\n'
    text = "".join(
        (pool + '[pool.health]\ntype = "tcp"\n' + service).format(n) for n in range(1, 99)
    )
    walked: list[str] = []

    def counting(*arguments: Any) -> Any:
        walked.append(arguments[1])
        return tables(*arguments)

    monkeypatch.setattr(rules_health, "tables", counting)
    assert len(accepted(GOOD + text).pools) > 97
    assert walked.count("service") == 1
