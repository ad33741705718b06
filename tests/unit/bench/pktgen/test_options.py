"""The command line: what it means, and that every rule is told with the value that breaks it."""

from ipaddress import ip_address

import pytest

from bench.pktgen.options import Span, parse
from tests.unit.bench.pktgen.values import options


def test_what_is_left_out() -> None:
    chosen = options()
    assert (chosen.size, chosen.flows, chosen.pps, chosen.packets) == (64, 10_000, 0, 0)
    assert chosen.sources == Span(int(ip_address("198.18.0.0")), int(ip_address("198.19.255.255")))
    assert chosen.status_command == ("lbfwd", "status", "--json")


def test_what_is_left_out_over_ipv6() -> None:
    chosen = options(vip="2001:db8::10")
    assert chosen.size == 82
    assert chosen.sources.first == int(ip_address("2001:2::"))


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("10.0.0.0/30", "10.0.0.0", "10.0.0.3"),
        ("10.0.0.9", "10.0.0.9", "10.0.0.9"),
        ("10.0.0.9-10.0.1.0", "10.0.0.9", "10.0.1.0"),
    ],
)
def test_sources(text: str, first: str, last: str) -> None:
    assert options("--sources", text).sources == Span(int(ip_address(first)), int(ip_address(last)))


def test_lists() -> None:
    assert options("--cpus", "0,2-4", "--queues", "1,1,0-1").cpus == (0, 2, 3, 4)
    assert options("--cpus", "0,2-4", "--queues", "1,1,0-1").queues == (1, 1, 0, 1)


def test_megabits_are_those_of_frames_with_fcs() -> None:
    # 10 Gb/s of frames of 512 bytes
    assert options("--size", "512", "--mbps", "10000").pps == 2_441_406


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--size", "63"), "'63' is not a whole number from 64 to 9018"),
        (("--size", "1e3"), "'1e3' is not a whole number"),
        (("--port", "0"), "'0' is not a whole number from 1 to 65535"),
        (("--packets", "10000000000"), "from 1 to 9999999999"),
        (("--mac", "02:00:00:00:00"), "'02:00:00:00:00' is not a MAC address"),
        (("--mac", "ff:ff:ff:ff:ff:ff"), "'ff:ff:ff:ff:ff:ff' is not the MAC address of one"),
        (("--mac", "00:00:00:00:00:00"), "is not the MAC address of one station"),
        (("--vip", "224.0.0.1"), "'224.0.0.1' is not the IPv4 or IPv6 address of one host"),
        (("--vip", "fe80::1%eth0"), "'fe80::1%eth0' is not the IPv4 or IPv6 address"),
        (("--vip", "2001:db8::1", "--size", "64"), "64 is below 82"),
        (("--sources", "10.0.0.1/8"), "'10.0.0.1/8' is not an address, a network"),
        (("--sources", "10.0.0.2-10.0.0.1"), "'10.0.0.2-10.0.0.1': FIRST is above LAST"),
        (("--sources", "10.0.0.2-2001:db8::"), "or of another family"),
        (("--sources", "224.0.0.0/8"), "not a multicast group"),
        (("--sources", "2001:db8::/64"), "is not of the family of --vip"),
        (("--source-ports", "9-8"), "'9-8' is not a range"),
        (("--source-ports", "1-65535"), "from 1 to 65534"),
        (("--cpus", "3-1"), "'3-1' is not a list of numbers"),
        (("--cpus", ""), "'' is not a list of numbers"),
        (("--seconds", "0"), "'0' is not a number above 0"),
        (("--seconds", "nan"), "'nan' is not a number above 0"),
        (("--pps", "1", "--mbps", "1"), "not allowed with"),
        (("--packets", "1", "--seconds", "1"), "not allowed with"),
        (("--status-command", "ssh 'lb1"), "No closing quotation"),
    ],
)
def test_rules(given: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        options(*given)
    assert told in capsys.readouterr().err


def test_json_is_wanted() -> None:
    given = ["eth0", "--mac", "02:00:00:00:00:01", "--vip", "192.0.2.10", "--port", "53"]
    assert [parse(given)[1], parse([*given, "--json"])[1]] == [False, True]
