"""``lbfwd status``: what the running lbfwd does, as tables or JSON."""

import argparse
import sys
from typing import TYPE_CHECKING

from lbfwd.cli.ask import add_options, ask
from lbfwd.cli.text import age, duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console, RenderableType

    from lbfwd.supervisor.status import BackendStatus, PoolStatus, Status

HELP = "Show what the running lbfwd does."
_PLAIN_WIDTH = 200  # of a file or pipe, where nothing is cut to a screen


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "--fleet",
        action="store_true",
        help="ask all [fleet] nodes and say whether they agree (exit code 1: they do not)",
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    if args.fleet:
        from lbfwd.cli import status_fleet

        return status_fleet.run(args)
    return ask(args, "GET", "/v1/status", _show)


def _show(body: bytes) -> None:
    from lbfwd.supervisor.status import Status

    screen = console()
    for part in render(Status.model_validate_json(body)):
        screen.print(part)


def console() -> "Console":
    """Return what tables are printed on."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(width=width, markup=False)  # "[etcd]" is a table, and no style


def render(status: "Status") -> "Iterator[RenderableType]":
    """Return the parts to print, in order."""
    yield (
        f"lbfwd {status.version} on {status.node}: generation {status.generation}, "
        f"up {duration(status.uptime_s)}, pid {status.pid}, {status.config_file}"
    )
    yield from _shared(status)
    yield _workers(status)
    yield _interfaces(status)
    yield from _vips(status)
    yield from _peers(status)
    yield _services(status)
    for pool in status.pools:
        yield _pool(pool)
    yield from _tunnel(status)
    yield _drops(status)
    yield from _events(status)


def _shared(status: "Status") -> "Iterator[RenderableType]":
    shared = status.shared
    if shared is None:
        return
    revision = "nothing" if shared.revision is None else f"revision {shared.revision}"
    yield f"shared configuration: {revision} of {shared.key} in etcd is in force"
    if shared.etcd_problem:
        yield f"  etcd is away: {shared.etcd_problem}"
    if shared.seen not in (None, shared.revision):
        yield f"  revision {shared.seen}, the latest, is not"
    yield from (f"  {problem}" for problem in shared.problems)


def _workers(status: "Status") -> "RenderableType":
    rows = [
        (
            worker.slot,
            worker.cpu,
            worker.settings.ring,
            worker.pid or "-",
            worker.state,
            worker.restarts,
            f"{worker.heartbeat_age_ms} ms",
            worker.seen,
            worker.bursts,
            worker.sends,
            sum(ring.packets for ring in worker.rings),
            sum(ring.drops for ring in worker.rings),
            sum(ring.freezes for ring in worker.rings),
        )
        for worker in status.workers
    ]
    names = (
        "slot cpu ring pid state restarts heartbeat seen bursts sends "
        "ring-packets ring-drops freezes"
    )
    return table("workers", names.split(), rows)


def _interfaces(status: "Status") -> "RenderableType":
    rows = [
        (
            interface.name,
            "in/out" if interface.receives else "out",
            interface.state if interface.carrier or interface.state != "up" else "no carrier",
            interface.mtu or "-",
            "all packets" if interface.admits_all else "VIPs" if interface.receives else "-",
            interface.device_tx_dropped,
            interface.qdisc_tx_dropped,
        )
        for interface in status.interfaces
    ]
    names = ["interface", "use", "state", "mtu", "admits", "device-tx-drops", "qdisc-tx-drops"]
    return table("interfaces", names, rows)


def _vips(status: "Status") -> "Iterator[RenderableType]":
    from lbfwd.supervisor.status import NOTHING_ANNOUNCED

    if any(vip.reason != NOTHING_ANNOUNCED for vip in status.vips):
        rows = [(v.vip, "yes" if v.announced else "no", v.reason or "-") for v in status.vips]
        yield table("VIPs", ["vip", "announced", "reason"], rows)


def _peers(status: "Status") -> "Iterator[RenderableType]":
    if status.peers:
        rows = [
            (
                peer.name,
                ", ".join(map(str, peer.addresses)),
                "this node" if peer.here else age(peer.since) if peer.since else "-",
                "live" if peer.live else "not live",
                peer.reason or "-",
            )
            for peer in status.peers
        ]
        yield table("fragments go to", ["node", "addresses", "since", "state", "reason"], rows)


def _services(status: "Status") -> "RenderableType":
    rows = [
        (
            service.name,
            service.vip,
            service.protocol,
            service.port or "any",
            service.pool,
            service.packets,
            service.bytes,
            service.new_flows,
            service.flows,
            service.fingerprint,
        )
        for service in status.services
    ]
    names = "service vip protocol port pool packets bytes new-flows flows fingerprint"
    return table("services", names.split(), rows)


def _pool(pool: "PoolStatus") -> "RenderableType":
    registered = any(backend.registration for backend in pool.backends)
    rows = [
        (
            backend.name,
            backend.address,
            _weight(backend),
            f"{backend.slots / pool.table_size:.1%}",
            _condition(backend),
            _probe(backend),
            ", ".join(f"{hop.gateway} on {hop.interface}" for hop in backend.hops) or "-",
            backend.packets,
            backend.bytes,
            backend.new_flows,
            backend.flows,
            *([_origin(backend)] if registered else []),
        )
        for backend in pool.backends
    ]
    names = [
        "backend", "address", "weight", "share", "state", "probe", "next hop", "packets", "bytes",
        "new-flows", "flows", *(["from"] if registered else []),
    ]  # fmt: skip
    return table(f"pool {pool.name} (table of {pool.table_size})", names, rows)


def _origin(backend: "BackendStatus") -> str:
    """Return how a backend came in."""
    registration = backend.registration
    if registration is None:
        return "configuration"
    return f"{registration.source}: {registration.state} for {age(registration.since)}"


def _weight(backend: "BackendStatus") -> str:
    if backend.weight_in_force in (0, backend.weight):
        return str(backend.weight)
    return f"{backend.weight_in_force:g} of {backend.weight}"


def _condition(backend: "BackendStatus") -> str:
    """Return the condition, for how long it has been so, and why."""
    condition = f"{backend.condition} for {age(backend.since)}"
    return "; ".join(
        filter(None, dict.fromkeys((condition, backend.health_reason, backend.reason)))
    )


def _probe(backend: "BackendStatus") -> str:
    """Return how long the last probe took, and what became of it unless it passed."""
    probe = backend.probe
    if probe is None:
        return "-"
    took = f"{probe.duration_ms:.1f} ms"
    return took if probe.outcome == "passed" else f"{probe.outcome}, {took}"


def _tunnel(status: "Status") -> "Iterator[RenderableType]":
    """Say of probes through the tunnel what is not as it should be."""
    tunnel = status.tunnel
    if tunnel is None:
        return
    rows = [("broken", tunnel.trouble, "lbfwd doctor node")] if tunnel.trouble else []
    rows += [("answers blocked", each.reason, each.fix) for each in tunnel.blocked]
    rows += [("mtu hole", each.reason, each.fix) for each in tunnel.mtu_holes]
    rows += [(f"dropped: {why}", f"{n} packets", "-") for why, n in tunnel.dropped.items() if n]
    if rows:
        yield table("probes through the tunnel", ["trouble", "what", "fix"], rows)


def _drops(status: "Status") -> "RenderableType":
    rows = [(reason, count) for reason, count in status.drops.items() if count]
    if not rows:
        return "no packet was dropped"
    return table("dropped packets", ["reason", "packets"], rows)


def _events(status: "Status") -> "Iterator[RenderableType]":
    rows = [(event, count) for event, count in status.events.items() if count]
    if rows:
        yield table("events", ["event", "times"], rows)


def table(
    title: str, names: "Iterable[str]", rows: "Iterable[tuple[object, ...]]"
) -> "RenderableType":
    """Return a table; columns of numbers stand to the right."""
    from rich.box import SIMPLE
    from rich.table import Table

    rows = list(rows)
    made = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for column, name in enumerate(names):
        numbers = bool(rows) and all(isinstance(row[column], int) for row in rows)
        made.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    return made
