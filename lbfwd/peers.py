"""The fleet's nodes as workers read them (``_fleet.h``): rows, paths, Maglev table. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lbfwd import maglev
from lbfwd._ringlib import ffi
from lbfwd.forwarding import PeerNode, Peers
from lbfwd.paths import path_row
from lbfwd.shared import pack_paths

TABLE_SIZE = 65537
_REMEMBERED = 16  # sets of live nodes


@dataclass(frozen=True)
class PackedPeers:
    """What of a snapshot is about the fleet; ``here``: index of this node's row."""

    rows: bytes = b""
    count: int = 0
    paths: bytes = b""
    path_count: int = 0
    table: bytes = b""
    table_size: int = 0
    here: int = 0


def pack_peers(peers: Peers | None) -> PackedPeers:
    """Return the rows, in ascending order of identity, and the table over the live nodes.

    The identity is the node's name and each weighs 1, so that nodes that see the same ones live
    have the same table. None live: no table.
    """
    if peers is None:
        return PackedPeers()
    names = [node.name for node in peers.nodes]
    nodes = [peers.nodes[i] for i in maglev.rank(names)]
    paths = [path for node in nodes for path in node.paths]
    table = _table(tuple(node.name for node in nodes), tuple(int(node.live) for node in nodes))
    return PackedPeers(
        rows=_pack_rows(nodes),
        count=len(nodes),
        paths=pack_paths([path_row(path) for path in paths]),
        path_count=len(paths),
        table=table,
        table_size=len(table) // 2,
        here=[node.name for node in nodes].index(peers.here),
    )


@lru_cache(maxsize=_REMEMBERED)
def _table(names: tuple[str, ...], weights: tuple[int, ...]) -> bytes:
    return maglev.populate(names, weights, TABLE_SIZE).tobytes() if any(weights) else b""


def _pack_rows(nodes: Sequence[PeerNode]) -> bytes:
    rows = ffi.new("struct lbfwd_peer[]", len(nodes))
    first = 0
    for row, node in zip(rows, nodes, strict=True):
        for address in node.addresses:
            field = row.ipv4 if address.version == 4 else row.ipv6
            ffi.memmove(field, address.packed, len(address.packed))
            setattr(row, f"has_ipv{address.version}", 1)
        row.path_first, row.path_count = first, len(node.paths)
        first += len(node.paths)
    return bytes(ffi.buffer(rows))
