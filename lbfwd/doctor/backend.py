"""Checks of a backend: does what a node sends reach its service, and come back? Pure."""

from collections.abc import Iterator

from lbfwd.backend.plan import ENCAPSULATION_BYTES, TUN_DEVICE
from lbfwd.backend.sysctl import ARP
from lbfwd.config import IPAddress
from lbfwd.doctor.facts import BackendFacts, Device
from lbfwd.doctor.finding import Finding, broken, ok, warn

GRE_KINDS = {4: ("gre",), 6: ("ip6gre",)}


def tunnel(facts: BackendFacts) -> Iterator[Finding]:
    """Look for a device that unwraps what comes from the nodes, by family."""
    kit = _kit_command(facts)
    for version in sorted({node.version for node in facts.nodes}):
        devices = [d for d in facts.devices if unwraps(d, version)]
        up = [d for d in devices if d.up]
        if up:
            yield ok("tunnel", f"IPv{version} nodes: {up[0].name} ({up[0].kind}) is up")
            if all(d.kind == "tun" for d in up):
                why = "user space unwraps: a core at most, and a system call a packet"
                fix = f"modprobe {'ip_gre' if version == 4 else 'ip6_gre'}; restart lbfwd backend"
                yield warn("tunnel", f"{up[0].name}: this kernel has no GRE device", why, fix)
        elif devices:
            what = f"{devices[0].name} is down"
            fix = f"ip link set {devices[0].name} up"
            yield broken("tunnel", what, "nothing that the nodes send is unwrapped", fix)
        else:
            what = f"no device unwraps GRE from IPv{version} nodes"
            yield broken("tunnel", what, "nothing that the nodes send arrives", kit)


def unwraps(device: Device, version: int) -> bool:
    """Whether a device takes GRE from nodes of an IP version."""
    return device.name == TUN_DEVICE or device.kind in GRE_KINDS[version]


def vips(facts: BackendFacts) -> Iterator[Finding]:
    """Look for the VIPs on lo, and nowhere else."""
    for vip in facts.vips:
        device = facts.addresses.get(vip)
        if device == "lo":
            yield ok("vip", f"{vip} is on lo")
        elif device is None:
            why = "what comes out of the tunnel is for nobody here, and is dropped"
            fix = f"ip address add {vip}/{vip.max_prefixlen} dev lo"
            yield broken("vip", f"{vip} is no address of this machine", why, fix)
        else:
            why = f"{device} answers ARP and neighbour discovery for it: it takes the VIP over"
            move = f"ip address del {vip} dev {device}"
            fix = f"{move}; ip address add {vip}/{vip.max_prefixlen} dev lo"
            yield broken("vip", f"{vip} is on {device}", why, fix)


def arp(facts: BackendFacts) -> Iterator[Finding]:
    """Tell whether the link can learn that IPv4 VIPs are here, too."""
    if not any(vip.version == 4 for vip in facts.vips):
        return
    found = []
    for name, values in (("arp_ignore", facts.arp_ignore), ("arp_announce", facts.arp_announce)):
        least = ARP[f"ipv4/conf/all/{name}"]
        low = sorted(device for device, value in values.items() if value < least)
        if low:
            what = f"{name} is below {least} on {', '.join(low)}"
            why = "this machine answers ARP for the VIPs, or asks with them: it takes them over"
            fix = f"sysctl -w net.ipv4.conf.all.{name}={least}"
            found.append(broken("arp", what, why, fix))
    yield from found or [ok("arp", "VIPs are kept out of ARP")]


def reverse_path(facts: BackendFacts) -> Iterator[Finding]:
    """Check rp_filter of the tunnel devices: strict and loose drop the clients' packets."""
    general = facts.rp_filter.get("all", 0)
    for device in _tunnels(facts):
        own = facts.rp_filter.get(device.name, 0)
        value = max(general, own)
        if value == 0:
            yield ok("rp_filter", f"{device.name}: off")
            continue
        what = f"{device.name}: {value} (all {general}, its own {own}; the higher counts)"
        why = "the device has no route back to any client: strict and loose drop every packet"
        keep = "".join(
            f" net.ipv4.conf.{name}.rp_filter={general}"
            for name in sorted(facts.rp_filter)
            if general and name not in ("all", device.name) and facts.rp_filter[name] < general
        )
        zero = f"net.ipv4.conf.{device.name}.rp_filter=0 net.ipv4.conf.all.rp_filter=0"
        yield broken("rp_filter", what, why, f"sysctl -w{keep} {zero}")


def filtering(facts: BackendFacts) -> Iterator[Finding]:
    """Tell who may send GRE here."""
    if not facts.filtered:
        what = "no nftables table inet lbfwd_backend"
        why = "whoever can reach this machine can send packets to the service past lbfwd"
        yield warn("filter", what, why, _kit_command(facts))
    elif facts.strangers:
        what = f"{facts.strangers} GRE packets of strangers were dropped"
        why = "a node is missing from --node, or somebody else sends GRE here"
        fix = "tcpdump -ni any ip proto 47 or ip6 proto 47  # who? then lbfwd backend --node …"
        yield warn("filter", what, why, fix)
    else:
        yield ok("filter", f"GRE from {len(facts.nodes)} nodes only, and none from strangers")


def nodes(facts: BackendFacts) -> Iterator[Finding]:
    """Check the ways back to the nodes, and the MTU of the tunnel."""
    for node in facts.nodes:
        underlay = facts.underlays[node]
        if underlay.problem:
            why = "the tunnel's MTU cannot be told; its packets may still come"
            yield warn("nodes", f"{node}: {underlay.problem}", why, f"ip route get {node}")
            continue
        room = underlay.mtu - ENCAPSULATION_BYTES[node.version]
        large = [d for d in _tunnels(facts) if unwraps(d, node.version) and d.mtu > room]
        for device in large:
            what = f"{device.name}: MTU {device.mtu}, and the way from node {node} has room for "
            why = "clients are told an MSS that does not fit: large packets are dropped on the way"
            fix = f"ip link set {device.name} mtu {room}"
            yield warn("nodes", f"{what}{room}", why, fix)
        if not large:
            yield ok("nodes", f"{node}: packets of {room} bytes fit the tunnel")


def mss(facts: BackendFacts) -> Iterator[Finding]:
    """Tell whether replies tell TCP clients an MSS that fits the tunnel."""
    missing = [vip for vip in facts.vips if vip not in facts.ruled]
    if not missing:
        yield ok("mss", "replies advertise an MSS that fits the tunnel")
        return
    what = f"no route of their own for replies from {', '.join(map(str, missing))}"
    why = "clients send full-sized segments: lbfwd has to answer them with 'too big'"
    yield warn("mss", what, why, _kit_command(facts))


def servers(facts: BackendFacts) -> Iterator[Finding]:
    """Tell whether anything listens where the VIPs' packets go."""
    deaf = [vip for vip in facts.vips if not _heard(vip, facts.listening)]
    for vip in deaf:
        why = "connections are refused"
        fix = "ss -lntu  # have the service listen on the VIP, or on every address"
        yield broken("servers", f"nothing listens on {vip}, nor on every address", why, fix)
    if not deaf:
        yield ok("servers", "each VIP has a listening socket")


def _heard(vip: IPAddress, listening: frozenset[IPAddress]) -> bool:
    # A socket on :: takes IPv4, too, unless it is told not to (IPV6_V6ONLY).
    return vip in listening or any(
        address.is_unspecified and address.version >= vip.version for address in listening
    )


def losses(facts: BackendFacts) -> Iterator[Finding]:
    """Count packets that user space was too slow to unwrap, and those it cannot unwrap."""
    if not any(device.kind == "tun" for device in _tunnels(facts)):
        return
    merging = sorted(name for name, found in facts.offloads.items() if found.udp_gro_forwarding)
    if facts.raw_drops:
        what = f"{facts.raw_drops} GRE packets found no room at the raw socket"
        why = "user space is too slow: clients' packets are lost"
        fix = "modprobe -a ip_gre ip6_gre; restart lbfwd backend"
        yield warn("losses", what, why, fix)
    for name in merging:
        why = "merged UDP datagrams cannot be told apart again in user space"
        fix = f"ethtool -K {name} rx-udp-gro-forwarding off"
        yield warn("losses", f"{name}: rx-udp-gro-forwarding is on", why, fix)
    if not facts.raw_drops and not merging:
        yield ok("losses", "user space has lost none")


def _tunnels(facts: BackendFacts) -> list[Device]:
    versions = {node.version for node in facts.nodes}
    return [d for d in facts.devices if any(unwraps(d, version) for version in versions)]


def _kit_command(facts: BackendFacts) -> str:
    """Return the command that makes this machine a backend."""
    vip = "".join(f" --vip {vip}" for vip in facts.vips)
    node = "".join(f" --node {node}" for node in facts.nodes)
    return f"lbfwd backend{vip}{node}"
