"""Which rings a change that failed leaves; rings and sockets themselves are tests/topology/node."""

import asyncio
from ipaddress import IPv4Address
from typing import Any

import pytest

from lbfwd.config import WorkerSettings
from lbfwd.net.members import Members
from lbfwd.supervisor.ports import Ports
from lbfwd.supervisor.rings import Receiver, Transmitter, rx_shape, tx_shape
from tests.unit.supervisor.build import link

SETTINGS = {0: WorkerSettings(), 1: WorkerSettings()}
OTHER = {0: WorkerSettings(rx_ring_mib=8), 1: WorkerSettings(rx_ring_mib=8)}
ETH0, ETH1 = link("eth0", 2), link("eth1", 3)


def rx(where: Any, settings: Any = SETTINGS) -> Receiver:
    return Receiver(where, (), None, 1, rx_shape(settings))  # type: ignore[arg-type]


def tx(where: Any) -> Transmitter:
    return Transmitter(where, (), None, tx_shape(SETTINGS))  # type: ignore[arg-type]


def ports() -> Ports:
    found = Ports(SETTINGS, "hash")
    found.receivers, found.transmitters = [rx(ETH0)], [tx(ETH0), tx(ETH1)]
    return found


def test_rings_that_were_opened_meanwhile_go() -> None:
    found = ports()
    before = found.present()
    found.reshape(OTHER, "cpu")
    opened = [rx(ETH0, OTHER), rx(ETH1, OTHER)], [tx(ETH1)]
    found.receivers += opened[0]
    found.transmitters += opened[1]
    assert found.go_back(before) == [*opened[0], *opened[1]]
    assert found.present() == before


def test_one_that_has_taken_the_place_of_another_stays_and_is_succeeded() -> None:
    found = ports()
    before = found.present()
    found.reshape(OTHER, "hash")
    heir = rx(ETH0, OTHER)
    found.receivers = [heir]  # its predecessor is closed: it alone has the interface's packets
    assert found.go_back(before) == []
    assert found.receivers == [heir]
    again = rx(ETH0)
    found.receivers.append(again)  # what ``open`` makes, since none has the shape that is wanted
    assert found.successions() == [(heir, again)]


class Known(Members):
    """Members of which the order is known, without an interface."""

    def __init__(self, *order: int) -> None:
        self._order = order

    def look(self) -> bool:
        return True

    def close(self) -> None:
        pass


def test_a_hand_over_that_fails_forgets_nobodys_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_ring: Receiver, _program: Any) -> None:
        raise OSError(12, "no memory")

    monkeypatch.setattr(Receiver, "steer", refuse)
    found = ports()
    before = found.present()
    (old,), new = found.receivers, rx(ETH0, OTHER)
    found._members[old] = Known(1, 0)  # so it is between an earlier hand-over and a flap
    found.reshape(OTHER, "hash")
    found.receivers.append(new)

    async def fail() -> tuple[int, ...]:
        with pytest.raises(OSError, match="no memory"):
            await found.redirect(old, new, [0, 1])
        assert found.go_back(before) == [new]
        return await found._numbers(old)

    assert asyncio.run(fail()) == (1, 0)


async def _admitted(monkeypatch: pytest.MonkeyPatch, *links: Any) -> dict[str, set[int]]:
    """Which VLANs each interface's rings leave to others."""
    told: dict[str, set[int]] = {}

    def admit(ring: Receiver, _vips: Any, elsewhere: Any, *_peers: Any) -> None:
        told[ring.link.name] = set(elsewhere)

    monkeypatch.setattr(Receiver, "admit", admit)
    found = Ports(SETTINGS, "hash")
    found.receivers = [rx(where) for where in links]
    await found.admit({IPv4Address("192.0.2.10")})
    # Nothing is set anew as long as nothing changes; without the VLANs' rings the parent is.
    before, told = told, {}
    await found.admit({IPv4Address("192.0.2.10")})
    assert told == {}
    found.receivers = [ring for ring in found.receivers if not ring.link.vlan]
    await found.admit({IPv4Address("192.0.2.10")})
    assert told == {name: set() for name, others in before.items() if others}
    return before


def test_vlans_with_rings_of_their_own_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    vlans = [link("eth0.7", 4, below=2, vlan=7), link("v8", 5, below=2, vlan=8)]
    elsewhere = link("eth9.9", 6, below=9, vlan=9)
    found = asyncio.run(_admitted(monkeypatch, ETH0, ETH1, *vlans, elsewhere))
    assert found == {"eth0": {7, 8}, "eth1": set(), "eth0.7": set(), "v8": set(), "eth9.9": set()}
