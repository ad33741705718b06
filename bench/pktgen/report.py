"""The report of a run: text for people, plain values for JSON. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bench.pktgen.answers import Sent
from bench.pktgen.node import NodeCount
from bench.pktgen.options import FCS, Address, Options, Span
from bench.pktgen.plan import Sender

LINE_OVERHEAD = 20  # bytes a frame: preamble and start of 8, gap of 12 (IEEE 802.3)
MEGA = 1e6


@dataclass(frozen=True)
class Rate:
    """Packets, and how fast. ``mbps``: frames with FCS; ``line_mbps``: with preamble and gap."""

    packets: int
    errors: int
    seconds: float
    pps: float
    mbps: float
    line_mbps: float


def rate(sent: Sequence[Sent], size: int) -> Rate:
    """Return the rate of one thread or several: all packets between first start and last stop."""
    packets = sum(one.packets for one in sent)
    seconds = max(one.stopped_s for one in sent) - min(one.started_s for one in sent)
    pps = packets / seconds if seconds else 0.0
    return Rate(
        packets,
        sum(one.errors for one in sent),
        seconds,
        pps,
        pps * size * 8 / MEGA,
        pps * (size + LINE_OVERHEAD) * 8 / MEGA,
    )


@dataclass(frozen=True)
class Report:
    """What was sent and, unless no node was asked, what became of it."""

    options: Options
    senders: tuple[Sender, ...]
    sent: tuple[Sent, ...]
    node: NodeCount | None

    @property
    def total(self) -> Rate:
        """What all threads have sent."""
        return rate(self.sent, self.options.size)

    @property
    def flows(self) -> int:
        """Flows that a run touches if it is long enough."""
        return sum(sender.flows for sender in self.senders)

    @property
    def in_a_row(self) -> int:
        """Packets that are sent for each that is built."""
        return self.options.burst * max(self.options.clone, 1)


def plain(report: Report) -> dict[str, object]:
    """Return the report for JSON."""
    options = report.options
    threads = [
        {
            "device": sender.device,
            "cpu": sender.cpu,
            "queue": sender.queue,
            "flows": sender.flows,
            "idle_s": sent.idle_s,
        }
        | asdict(rate([sent], options.size))
        for sender, sent in zip(report.senders, report.sent, strict=True)
    ]
    return {
        "options": asdict(options)
        | {"vip": str(options.vip), "sources": _shown(options.sources, options.vip)},
        "flows": report.flows,
        "threads": threads,
        "total": asdict(report.total),
        "node": asdict(report.node) if report.node else None,
        "lost": lost(report.total.packets, report.node) if report.node else None,
    }


def _shown(sources: Span, like: Address) -> list[str]:
    return [str(type(like)(end)) for end in (sources.first, sources.last)]


def lost(sent: int, node: NodeCount) -> dict[str, int]:
    """Return the packets that went missing, by place; below 0 where other traffic came in."""
    waiting = node.received - node.ring_full - node.forwarded - sum(node.dropped.values())
    return {
        "on the way to the node's rings": sent - node.received,
        "no room in a ring": node.ring_full,
        **({"still in the node": waiting} if waiting else {}),
        **{f"dropped: {reason}": count for reason, count in node.dropped.items()},
        **{f"behind lbfwd: {place}": count for place, count in node.behind.items()},
    }


def text(report: Report) -> str:
    """Return the report as tables."""
    parts = [_title(report), *_notes(report), "", *_table(list(_sent_rows(report)))]
    if report.node:
        seconds = report.total.seconds
        parts += ["", f"node {report.node.name}", *_table(list(_node_rows(report.node, seconds)))]
        parts += ["", "what became of them", *_table(list(_fate_rows(report, report.node)))]
    return "\n".join(parts)


def _title(report: Report) -> str:
    options = report.options
    return (
        f"pktgen on {options.interface}: threads: {len(report.senders)}, frames of {options.size} "
        f"bytes ({options.size - FCS} + FCS), {report.flows:,} flows to {options.vip}, "
        f"UDP port {options.port}"
    )


def _notes(report: Report) -> Iterator[str]:
    if report.options.pps:
        yield f"asked for {report.options.pps:,} packets a second"
    if report.in_a_row > 1:
        yield f"{report.in_a_row} packets of a flow in a row (burst and clone)"
    if report.total.packets < report.flows * report.in_a_row:
        yield "too short a run to touch all flows"


def _sent_rows(report: Report) -> Iterator[Sequence[str]]:
    yield "sent by", "cpu", "queue", "packets", "seconds", "pps", "Mb/s", "line Mb/s", "errors"
    size = report.options.size
    for sender, sent in zip(report.senders, report.sent, strict=True):
        yield sender.device, str(sender.cpu), str(sender.queue), *_rate_cells(rate([sent], size))
    yield "all", "", "", *_rate_cells(report.total)


def _rate_cells(rate: Rate) -> tuple[str, ...]:
    return (
        f"{rate.packets:,}",
        f"{rate.seconds:.3f}",
        f"{rate.pps:,.0f}",
        f"{rate.mbps:,.1f}",
        f"{rate.line_mbps:,.1f}",
        f"{rate.errors:,}",
    )


def _node_rows(node: NodeCount, seconds: float) -> Iterator[Sequence[str]]:
    yield "worker", "cpu", "to its rings", "no room", "taken", "taken/s"
    for worker in node.workers:
        counts = worker.received, worker.ring_full, worker.taken, worker.taken / seconds
        yield str(worker.slot), str(worker.cpu), *(f"{count:,.0f}" for count in counts)


def _fate_rows(report: Report, node: NodeCount) -> Iterator[Sequence[str]]:
    sent = report.total.packets
    delivered = node.forwarded - sum(node.behind.values())
    yield "", "packets", "of those sent"
    rows = {"sent": sent, **lost(sent, node), "forwarded, and not dropped behind": delivered}
    for name, count in rows.items():
        yield name, f"{count:,}", f"{count / sent:.4%}" if sent else "-"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(["", first, *rest])
