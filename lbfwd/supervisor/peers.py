"""Fragments across nodes: who takes part, at which addresses, and the ways there. Pure."""

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import replace

from lbfwd.backend.plan import ENCAPSULATION_BYTES, IPV6_LEAST_MTU
from lbfwd.config import Config, IPAddress
from lbfwd.config.fleet import FleetNode
from lbfwd.encap import PEER_MARK
from lbfwd.forwarding import PathSpec, PeerNode, Peers
from lbfwd.net import filter as net_filter
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.state import UNKNOWN, hops_by_weight, sendable

MOST_BYTES = 65535  # of an IP packet


def takes_part(config: Config) -> bool:
    """Whether this node hands fragments over to others."""
    return config.fleet.fragments == "peer"


def partners(config: Config) -> Mapping[str, IPAddress]:
    """Return where the other nodes take fragments, by name: IPv4 where both nodes have it."""
    if not takes_part(config):
        return {}
    families = {address.version for address in _here(config).addresses}
    return {
        node.name: min(
            (a for a in node.addresses if a.version in families), key=lambda a: a.version
        )
        for node in config.fleet.nodes
        if node.name != config.node.name
    }


def doors(config: Config) -> net_filter.Peers:
    """Return between which addresses fragments come in."""
    if not takes_part(config):
        return net_filter.NO_PEERS
    own = frozenset(_here(config).addresses)
    all_of_them = {address for node in config.fleet.nodes for address in node.addresses}
    return net_filter.Peers(own, frozenset(all_of_them - own))


def derive_peers(
    config: Config,
    resolutions: Mapping[IPAddress, Resolution],
    tx: Mapping[int, int],
    live: Set[str],
) -> Peers | None:
    """Return the fleet as workers see it; None: fragments stay here. ``tx``: as of ``derive``.

    A way to a node carries no larger packets than those to backends: whose packet is too big can be
    told here, and not by the other node any more.
    """
    if not takes_part(config):
        return None
    places = partners(config)
    own = {address.version: address for address in _here(config).addresses}
    largest = _largest_packet(resolutions, tx, {*places.values()})

    def paths(name: str) -> tuple[PathSpec, ...]:
        if (to := places.get(name)) is None:
            return ()
        return tuple(
            replace(path, mtu=min(path.mtu, largest + ENCAPSULATION_BYTES[to.version]))
            for path in _paths(own[to.version], to, resolutions.get(to, UNKNOWN), tx)
        )

    nodes = (
        PeerNode(node.name, node.addresses, node.name in live, paths(node.name))
        for node in config.fleet.nodes
    )
    return Peers(tuple(nodes), config.node.name)


def roster(config: Config) -> str:
    """Return 16 hex digits over who hands fragments over to whom: equal on all that agree.

    BLAKE2b, keyed with the fleet's hash key.
    """
    nodes = sorted([n.name, *map(str, n.addresses)] for n in config.fleet.nodes)
    text = json.dumps([config.fleet.fragments, nodes]).encode()
    return hashlib.blake2b(text, key=config.hash_key.raw, digest_size=8).hexdigest()


def _here(config: Config) -> FleetNode:
    return next(node for node in config.fleet.nodes if node.name == config.node.name)


def _largest_packet(
    resolutions: Mapping[IPAddress, Resolution], tx: Mapping[int, int], nodes: Set[IPAddress]
) -> int:
    """Return the largest packet, in bytes, that all known ways to backends carry in the tunnel.

    At least what IPv6 asks of every way: one that carries less must not be to the others' cost.
    """
    rooms = (
        hop.mtu - ENCAPSULATION_BYTES[to.version]
        for to, found in resolutions.items()
        if to not in nodes
        for hop in sendable(found, tx)
    )
    return max(IPV6_LEAST_MTU, min(rooms, default=MOST_BYTES))


def _paths(
    source: IPAddress, to: IPAddress, found: Resolution, tx: Mapping[int, int]
) -> tuple[PathSpec, ...]:
    """Return the ways to a node; from the address by which it knows this one, and never cut."""
    return tuple(
        PathSpec(
            src_mac=hop.link.mac,
            dst_mac=hop.mac,
            source=source,
            destination=to,
            tx=tx[hop.link.ifindex],
            mtu=hop.mtu,
            gre_flags=PEER_MARK,
        )
        for hop in hops_by_weight(sendable(found, tx))
    )
