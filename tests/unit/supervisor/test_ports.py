"""Which rings a change that failed leaves; rings and sockets themselves are tests/topology/node."""

from typing import Any

from lbfwd.config import WorkerSettings
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
