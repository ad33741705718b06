"""Families about deciding: probes and reloads. Pure."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from lbfwd.metrics.family import counter, gauge
from lbfwd.metrics.reading import Reading
from lbfwd.metrics.tally import PROBE_BOUNDS_S, PoolProbes, ReloadTally

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
