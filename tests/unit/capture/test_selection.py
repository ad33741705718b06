import pytest

from lbfwd.capture.packet import Flow
from lbfwd.capture.program import Pattern
from lbfwd.capture.selection import Asked, CaptureError, select
from tests.unit.capture.site import DNS_A, VIP4, VIP6, WEB_A, WEB_B, ip_address, status

CLIENT = ip_address("198.51.100.2")


def flow(protocol: int = 6, port: int | None = 80, client: object = CLIENT) -> Flow:
    return Flow(protocol, client, None if port is None else 4000, VIP4, port)  # type: ignore[arg-type]


def test_everything() -> None:
    found = select(status(), Asked())
    assert found.vips == {VIP4, VIP6}
    assert found.backends == {WEB_A: {"web": "a"}, WEB_B: {"web": "b"}, DNS_A: {"dns": "a"}}
    assert found.pattern is None
    assert found.has(flow())
    assert found.has(flow(port=9, protocol=17))  # no service: dropped, and seen
    assert found.has(None)


def test_a_service() -> None:
    found = select(status(), Asked(service="web"))
    assert found.vips == {VIP4}
    assert found.pattern == Pattern(VIP4, 6, 80)
    assert found.has(flow())
    assert not found.has(flow(port=81))
    assert not found.has(flow(17, 53))
    assert not found.has(None)
    assert found.has(flow(port=None))  # a later fragment: it may be


def test_a_service_of_every_port_leaves_the_others_out() -> None:
    found = select(status(), Asked(service="web-any"))
    assert found.pattern == Pattern(VIP4, 6, None)
    assert found.has(flow(port=81))
    assert not found.has(flow(port=80))  # that is service "web"


@pytest.mark.parametrize("name", ["b", str(WEB_B), "web/b"])
def test_a_backend(name: str) -> None:
    found = select(status(), Asked(backend=name))
    assert found.backends == {WEB_B: {"web": "b"}}
    assert found.named
    assert found.has(flow())
    assert not found.has(flow(17, 53))  # of a pool without it
    assert found.vips == {VIP4, VIP6}


def test_a_name_in_two_pools_means_both() -> None:
    assert set(select(status(), Asked(backend="a")).backends) == {WEB_A, DNS_A}
    assert set(select(status(), Asked(backend="dns/a")).backends) == {DNS_A}


def test_a_flow() -> None:
    words = ("tcp", f"{CLIENT}:4000", f"{VIP4}:80")
    found = select(status(), Asked(flow=words))
    assert found.pattern == Pattern(VIP4, 6, 80, CLIENT, 4000)
    assert found.has(flow())
    assert not found.has(flow(client=ip_address("198.51.100.3")))
    assert not found.has(None)
    client = select(status(), Asked(flow=("tcp", str(CLIENT), str(VIP4))))
    assert client.has(flow(port=81))


def test_dropped_packets_are_not_sent() -> None:
    found = select(status(), Asked(drop="no_service"))
    assert (found.before, found.after) == (True, False)
    assert not found.wanted(receives=True, sends=True, sample=1, snaplen=9).after


def test_an_interface_is_asked_for_what_it_does() -> None:
    found = select(status(), Asked(before=False)).wanted(True, True, 7, 99)
    assert (found.before, found.after, found.sample, found.snaplen) == (False, True, 7, 99)
    found = select(status(), Asked()).wanted(receives=True, sends=False, sample=1, snaplen=9)
    assert (found.before, found.after) == (True, False)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Asked(service="x"), "--service x: no such service"),
        (Asked(backend="x"), "--backend x: no such backend"),
        (Asked(service="web", backend="dns/a"), "--backend dns/a: no service"),
        (Asked(drop="x"), "--drop x: no such reason"),
        (Asked(drop="tx_ring_full"), "--drop tx_ring_full: it lies in the moment"),
        (Asked(flow=("icmp", "1.1.1.1", str(VIP4))), "--flow icmp: must be tcp or udp"),
        (Asked(flow=("tcp", "x", str(VIP4))), "--flow source 'x': must be ADDRESS"),
        (Asked(flow=("tcp", "1.1.1.1", f"{VIP4}:0")), "port '0' must be a number from 1 to 65535"),
        (Asked(flow=("tcp", "::1", str(VIP4))), "must be of one family"),
        (Asked(flow=("tcp", "1.1.1.1", "192.0.2.99")), "192.0.2.99 is not a VIP"),
        (Asked(service="web6", flow=("tcp", "1.1.1.1", str(VIP4))), "is not a VIP of what"),
    ],
)
def test_refusals(asked: Asked, text: str) -> None:
    with pytest.raises(CaptureError) as error:
        select(status(), asked)
    assert text in str(error.value)
