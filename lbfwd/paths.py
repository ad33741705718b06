"""A next hop as workers read it. Pure."""

from lbfwd.encap import outer_header
from lbfwd.forwarding import PathSpec
from lbfwd.shared import PathRow


def path_row(path: PathSpec) -> PathRow:
    """Return its row, with the outer header that packets on it get."""
    ends = path.source, path.destination
    header = outer_header(path.dst_mac, path.src_mac, *ends, path.may_fragment)
    header = header[:-4] + path.gre_flags.to_bytes(2, "big") + header[-2:]
    return PathRow(header, path.tx, path.mtu, path.entropy_bits)
