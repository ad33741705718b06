"""``lbfwd trace``: where a flow goes, and why; on this node, on others, and whether they agree."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lbfwd.cli.ask import add_options, seconds
from lbfwd.cli.nodes import Place, add_nodes, at_once, places
from lbfwd.cli.text import age

if TYPE_CHECKING:
    from lbfwd.supervisor.live import LivePacket
    from lbfwd.supervisor.trace import Trace, TraceHeader

HELP = "Tell where a flow goes, and why; with --live, where a packet of it went."
_HEX_WIDTH = 32


@dataclass(frozen=True)
class Answer:
    """One node's: a trace, or why there is none."""

    place: Place
    trace: "Trace | None" = None
    error: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add flow and nodes."""
    parser.add_argument("protocol", metavar="PROTO", help="tcp, udp or icmp")
    parser.add_argument("source", metavar="SRC[:PORT]", help="the client; IPv6 as [ADDRESS]:PORT")
    parser.add_argument("destination", metavar="DST[:PORT]", help="the VIP")
    add_nodes(parser)
    parser.add_argument(
        "--live",
        action="store_true",
        help="send a marked packet of the flow from this machine, and tell who took it",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds("0.1 to 5", lambda value: 0.1 <= value <= 5),
        default=2.0,
        help="with --live: how long nodes look for the packet (default: %(default)g)",
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and print; 1 when a node does not answer, or the nodes do not agree."""
    from lbfwd.flow import parse

    try:
        flow = parse(args.protocol, args.source, args.destination)
    except ValueError as error:
        print(f"lbfwd trace: {error}", file=sys.stderr)
        return 2
    if args.live:
        from lbfwd.cli.trace_live import run_live

        return run_live(args, flow)
    answers = ask_all(args, places(args))
    for answer in answers:
        if answer.error:
            print(answer.error, file=sys.stderr)
    found = differences(answers)
    if args.json:
        print(_json(answers, found))
    else:
        print("\n".join(_lines(answers, found)))
    return 1 if found or any(answer.error for answer in answers) else 0


def ask_all(args: argparse.Namespace, asked: Sequence[Place]) -> list[Answer]:
    """Ask these nodes where the flow of ``args`` goes, at once."""
    from lbfwd.api.client import ApiError
    from lbfwd.supervisor.trace import Trace

    question = "/v1/trace?" + urlencode(
        {"protocol": args.protocol, "source": args.source, "destination": args.destination}
    )

    def ask(place: Place) -> Answer:
        try:
            return Answer(place, place.get(Trace, question))
        except ApiError as error:
            return Answer(place, error=str(error))

    return at_once(ask, asked)


def differences(answers: Sequence[Answer]) -> list[str]:
    """Return what the nodes do not agree on, one text a fact."""
    traces = [answer.trace for answer in answers if answer.trace]
    facts: Mapping[str, list[str]] = {
        "outcome": [outcome_of(t) for t in traces],
        "fingerprint": [t.service.fingerprint if t.service else "-" for t in traces],
        "backend": [backend_of(t) for t in traces],
    }
    return [
        f"{name}: " + ", ".join(f"{t.node} {v}" for t, v in zip(traces, values, strict=True))
        for name, values in facts.items()
        if len(set(values)) > 1
    ]


def _json(answers: Sequence[Answer], found: Sequence[str]) -> str:
    """Return the node's trace itself, or those of several and whether they agree."""
    rows = [
        {
            "place": str(a.place),
            "error": a.error,
            "trace": a.trace and a.trace.model_dump(mode="json"),
        }
        for a in answers
    ]
    if len(rows) == 1 and not answers[0].error:
        return json.dumps(rows[0]["trace"])
    agree = not found and all(answer.trace for answer in answers)
    return json.dumps({"agree": agree, "differences": list(found), "nodes": rows})


def _lines(answers: Sequence[Answer], found: Sequence[str]) -> Iterator[str]:
    traces = [answer.trace for answer in answers if answer.trace]
    for trace in traces:
        yield from describe(trace)
        yield ""
    if len(traces) > 1:
        yield from ("the nodes do not agree", *found) if found else ("the nodes agree",)


def describe(trace: "Trace") -> Iterator[str]:
    """Return a trace as lines."""
    facts = [
        ("node", f"{trace.node}, generation {trace.generation}"),
        ("flow", flow_of(trace)),
        ("worker", _worker(trace)),
        *_choice(trace),
        ("because", trace.because),
        *_way(trace),
        ("outcome", outcome_of(trace)),
    ]
    yield from rows(facts)


def rows(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Return facts with their names as lines."""
    for name, text in facts:
        yield f"{name:<10}{text}".rstrip()


def flow_of(trace: "Trace") -> str:
    """Return the flow that was asked for."""
    from lbfwd.flow import Flow

    return str(
        Flow(
            trace.protocol,
            trace.source,
            trace.source_port,
            trace.destination,
            trace.destination_port,
        )
    )


def outcome_of(trace: "Trace | LivePacket") -> str:
    """Return what becomes of the packet, and why where it is not forwarded."""
    return " ".join(filter(None, (trace.outcome, trace.reason)))


def _worker(trace: "Trace") -> str:
    if trace.worker is None:
        return "depends on the core or queue that receives the packet"
    return f"{trace.worker}, by the fanout program"


def _choice(trace: "Trace") -> Iterator[tuple[str, str]]:
    if trace.service and trace.table:
        service, table = trace.service, trace.table
        yield (
            "service",
            f"{service.name} (affinity {service.affinity}, pool {service.pool}, "
            f"fingerprint {service.fingerprint})",
        )
        yield "key", table.key
        yield (
            "hash",
            f"{table.hash}, bucket {table.bucket} of {table.size}: {table.backend or 'nobody'}",
        )
        name = "entries"
        for entry in trace.entries:
            usable = "" if entry.usable else ", which may not serve it"
            yield (
                name,
                f"worker {entry.worker}: {entry.backend or 'a backend that is gone'}{usable} "
                f"({entry.state}, seen {entry.age_s} s ago, bucket {entry.bucket} of 2)",
            )
            name = ""
        if not trace.entries:
            yield name, "none, in no worker's flow table"
    yield "backend", backend_of(trace)
    if trace.backend:
        standing = f"{trace.backend.condition} for {age(trace.backend.since)}"
        yield "standing", "; ".join(filter(None, (standing, trace.backend.health_reason)))


def backend_of(trace: "Trace") -> str:
    """Return pool, name and address of the backend that gets the packet, or "none"."""
    if trace.backend is None:
        return "none"
    return f"{trace.pool}/{trace.backend.name} ({trace.backend.address})"


def _way(trace: "Trace") -> Iterator[tuple[str, str]]:
    if trace.hop:
        hop = trace.hop
        yield "next hop", f"{hop.gateway} ({hop.mac}) on {hop.interface}, MTU {hop.mtu}"
    if trace.outer:
        yield from _outer(trace.outer)


def _outer(outer: "TraceHeader") -> Iterator[tuple[str, str]]:
    fragment = {True: ", DF", False: ", no DF", None: ""}[outer.dont_fragment]
    yield "outer", f"{outer.src_mac} > {outer.dst_mac} on {outer.interface}"
    yield (
        "",
        f"{outer.source} > {outer.destination}, TTL {outer.ttl}, TOS 0x{outer.tos:02x}{fragment}, "
        f"{outer.length} bytes, GRE protocol {outer.gre_protocol}",
    )
    for at in range(0, len(outer.hex), _HEX_WIDTH):
        yield "", outer.hex[at : at + _HEX_WIDTH]
