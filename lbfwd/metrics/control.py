"""Families about deciding: probes, their tunnel, reloads. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from lbfwd.metrics.family import counter, gauge
from lbfwd.metrics.reading import Reading
from lbfwd.metrics.tally import PROBE_BOUNDS_S, PoolProbes, ReloadTally
from lbfwd.supervisor.status import TunnelStatus

_BOUNDS = (*map(floatToGoString, PROBE_BOUNDS_S), "+Inf")


def families(reading: Reading) -> Iterator[Metric]:
    """Return all of them."""
    yield counter(
        "lbfwd_probes",
        "Probes of a pool's backends by outcome; one that serves several pools counts in each.",
        (
            ({"pool": pool, "outcome": outcome}, count)
            for pool, probes in reading.probes.items()
            for outcome, count in sorted(probes.outcomes.items())
        ),
    )
    yield _durations(reading.probes)
    yield from _tunnel([reading.tunnel] if reading.tunnel else [])
    yield from _reloads(reading.reloads)


def _durations(pools: Mapping[str, PoolProbes]) -> Metric:
    family = HistogramMetricFamily(
        "lbfwd_probe_duration_seconds",
        "How long probes took, from their first step to their outcome.",
        labels=["pool"],
    )
    for pool, probes in pools.items():
        buckets = list(zip(_BOUNDS, accumulate(probes.durations), strict=True))
        family.add_metric([pool], buckets, probes.total_s)
    return family


def _tunnel(tunnels: Sequence[TunnelStatus]) -> Iterator[Metric]:
    """Without a tunnel there are families, and no samples."""
    yield gauge(
        "lbfwd_probe_tunnel_up",
        "1: probes can go through the tunnel; 0: not, and backends keep the verdicts they have.",
        (({}, float(not tunnel.trouble)) for tunnel in tunnels),
    )
    yield gauge(
        "lbfwd_probe_tunnel_mtu_holes",
        "Backends whose tunnel loses packets of its full size without an ICMP error.",
        (({}, len(tunnel.mtu_holes)) for tunnel in tunnels),
    )
    yield gauge(
        "lbfwd_probe_tunnel_blocked_answers",
        "Pairs of a VIP and an interface by which the kernel lets none of its answers in.",
        (({}, len(tunnel.blocked)) for tunnel in tunnels),
    )
    yield from _tunnel_traffic(tunnels)


def _tunnel_traffic(tunnels: Sequence[TunnelStatus]) -> Iterator[Metric]:
    yield counter(
        "lbfwd_probe_tunnel_packets",
        "Packets of probes that were sent through the tunnel.",
        (({}, tunnel.packets) for tunnel in tunnels),
    )
    yield counter(
        "lbfwd_probe_tunnel_bytes",
        "Bytes of these packets, from the IP header on, before encapsulation.",
        (({}, tunnel.bytes) for tunnel in tunnels),
    )
    yield counter(
        "lbfwd_probe_tunnel_dropped_packets",
        "Packets that came to the tunnel and were not sent: stray, too_big, unsent (refused).",
        (({"reason": name}, n) for tunnel in tunnels for name, n in tunnel.dropped.items()),
    )


def _reloads(reloads: ReloadTally) -> Iterator[Metric]:
    yield counter(
        "lbfwd_reloads",
        "Reloads by outcome: succeeded, refused (the configuration), failed (taking it up).",
        (({"outcome": outcome}, count) for outcome, count in reloads.outcomes.items()),
    )
    yield gauge(
        "lbfwd_last_reload_successful",
        "1: the last reload was taken up, or there was none; 0: the node runs with what it had.",
        [({}, float(reloads.last_succeeded))],
    )
    yield gauge(
        "lbfwd_last_reload_success_timestamp_seconds",
        "When the configuration in force was taken up, since the epoch.",
        [({}, reloads.succeeded_at)],
    )
    yield gauge(
        "lbfwd_last_reload_duration_seconds",
        "How long the last reload took, to the last worker's acknowledgement.",
        [({}, reloads.last_duration_s)],
    )
