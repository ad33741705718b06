"""What must be true at the end of the demo. Pure: from what was counted to PASS or FAIL."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lbfwd.demo.client import Transfer
from lbfwd.demo.tally import Phase
from lbfwd.demo.topology import VIPS
from lbfwd.supervisor.status import Status

# Some 400 requests a phase: four standard deviations of a share of one half are 10 %.
SHARE_TOLERANCE = 0.12
# Of a download, only the client's acknowledgements pass through lbfwd.
ACKNOWLEDGEMENTS = 0.1
MB = 1e6


@dataclass(frozen=True)
class Check:
    """One thing that was checked; ``detail`` says what was found."""

    name: str
    good: bool
    detail: str


def no_failures(totals: Phase) -> Check:
    """Check that every request was answered."""
    detail = f"{totals.answered} answered, {len(totals.failures)} failed"
    if totals.failures:
        detail += f": {totals.failures[0].error}"
    return Check(
        "every request was answered", bool(totals.answered) and not totals.failures, detail
    )


def no_resets(phases: Sequence[Phase]) -> Check:
    """Check that connections failed only while the pool changed, if ever.

    Without a flow table, a connection that is open at that moment may move to another backend.
    """
    quiet = sum(phase.resets for phase in phases if phase.title)
    changing = sum(phase.resets for phase in phases if not phase.title)
    detail = f"{quiet}, and {changing} while the pool changed"
    return Check("no connection was broken", quiet == 0, detail)


def both_families(totals: Phase, names: Sequence[str]) -> Check:
    """Check that every backend answered over IPv4 and IPv6."""
    per_family = {
        family: [totals.counts[name, family] for name in names] for family in sorted(VIPS)
    }
    detail = ", ".join(
        f"IPv{family} {'+'.join(map(str, counts))}" for family, counts in per_family.items()
    )
    good = all(count for counts in per_family.values() for count in counts)
    return Check("every backend, IPv4 and IPv6", good, detail)


def even(phase: Phase, names: Collection[str], absent: Collection[str] = ()) -> Check:
    """Check that ``names`` have equal shares of a phase, and ``absent`` have nothing."""
    fair = 1 / len(names)
    good = all(abs(phase.share(name) - fair) <= SHARE_TOLERANCE for name in names)
    good = good and not any(phase.by_backend(name) for name in absent)
    shown = sorted([*names, *absent])
    detail = ", ".join(f"{name} {phase.share(name):.0%}" for name in shown)
    return Check(f"equal shares, {phase.title}", good, detail)


def transferred(transfer: Transfer) -> Check:
    """Check that a large transfer arrived unchanged."""
    rate = transfer.size / MB / transfer.seconds
    found = "SHA-256 equal" if transfer.good else transfer.error or "SHA-256 DIFFERS"
    name = f"{transfer.direction} of {transfer.size / MB:.0f} MB over IPv{transfer.family}"
    where = f", backend {transfer.backend}" if transfer.backend else ""
    return Check(name, transfer.good, f"{found}{where}, {rate:.0f} MB/s")


def direct_return(
    uploads: Sequence[Transfer], downloads: Sequence[Transfer], states: Sequence[Status]
) -> Check:
    """Check that uploads pass through lbfwd and downloads do not.

    ``states``: before the uploads, between them and the downloads, after those.
    """
    up, down = (
        forwarded_bytes(after) - forwarded_bytes(before) for before, after in pairwise(states)
    )
    good = up >= sum(transfer.size for transfer in uploads)
    good = good and down <= ACKNOWLEDGEMENTS * sum(transfer.size for transfer in downloads)
    detail = f"through it: up {up / MB:.2f} MB, down {down / MB:.2f} MB"
    return Check("answers bypass lbfwd", good, detail)


def workers_share(status: Status) -> Check:
    """Check that every worker took packets, and none had to be replaced."""
    good = all(worker.seen and not worker.restarts for worker in status.workers)
    seen = ", ".join(f"cpu {worker.cpu}: {worker.seen}" for worker in status.workers)
    return Check("every worker forwards", good, f"{seen} packets")


def accounted(status: Status) -> Check:
    """Check that every packet ended in a counter."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in status.drops.items() if count)
    detail = f"{forwarded_packets(status)} forwarded, dropped: {dropped or 'none'}"
    good = in_flight(status) == 0
    return Check("every packet is accounted for", good, detail)


def stopped(statuses: Collection[int], rules: str) -> Check:
    """Check exit statuses, and that no nftables rule was left on the node."""
    detail = (
        f"exit codes {' '.join(map(str, statuses))}; {'rules left' if rules else 'no rule left'}"
    )
    return Check("everything stops cleanly", not any(statuses) and not rules, detail)


def in_flight(status: Status) -> int:
    """Return how many packets were taken from the rings and are in no other counter yet."""
    seen = sum(worker.seen for worker in status.workers)
    return seen - forwarded_packets(status) - sum(status.drops.values())


def forwarded_packets(status: Status) -> int:
    """Return how many packets were forwarded for all services."""
    return sum(service.packets for service in status.services)


def forwarded_bytes(status: Status) -> int:
    """Return the bytes of clients' packets that were forwarded for all services."""
    return sum(service.bytes for service in status.services)
