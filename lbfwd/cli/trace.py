"""``lbfwd trace``: where a flow goes, and why; on this node, on others, and whether they agree."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lbfwd.cli.ask import add_options, admin_socket
from lbfwd.cli.text import age

if TYPE_CHECKING:
    from lbfwd.flow import Flow
    from lbfwd.supervisor.trace import Trace, TraceHeader

HELP = "Tell where a flow goes, and why. Nothing is sent, and nothing is changed."
DEFAULT_PORT = 9108  # of [metrics] listen
_NODE = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?")
_MOST_AT_ONCE = 16
_HEX_WIDTH = 32


@dataclass(frozen=True)
class Answer:
    """One node's: a trace, or why there is none. ``place``: how it was asked."""

    place: str
    trace: "Trace | None" = None
    error: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add flow and nodes."""
    parser.add_argument("protocol", metavar="PROTO", help="tcp, udp or icmp")
    parser.add_argument("source", metavar="SRC[:PORT]", help="the client; IPv6 as [ADDRESS]:PORT")
    parser.add_argument("destination", metavar="DST[:PORT]", help="the VIP")
    parser.add_argument(
        "--node",
        metavar="HOST[:PORT]",
        dest="nodes",
        action="append",
        type=_node,
        default=[],
        help="ask this node, too, where [metrics] listen serves it; may be repeated "
        f"(default port: {DEFAULT_PORT})",
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
    answers = _ask_all(args, flow)
    for answer in answers:
        if answer.error:
            print(answer.error, file=sys.stderr)
    found = differences(answers)
    if args.json:
        print(_json(answers, found))
    else:
        print("\n".join(_lines(answers, found)))
    return 1 if found or any(answer.error for answer in answers) else 0


def _node(text: str) -> tuple[str, int]:
    found = _NODE.fullmatch(text)
    port = int(found["port"] or DEFAULT_PORT) if found else 0
    if not found or not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{text!r}: HOST, HOST:PORT or [ADDRESS]:PORT")
    return found["six"] or found["host"], port


def _ask_all(args: argparse.Namespace, flow: "Flow") -> list[Answer]:
    """Ask this machine's node, where one runs or no other is named, and all others, at once."""
    from lbfwd.api.client import ApiError, not_understood, request, request_tcp
    from lbfwd.supervisor.trace import Trace

    question = "/v1/trace?" + urlencode(
        {"protocol": flow.protocol, "source": args.source, "destination": args.destination}
    )
    socket = admin_socket(args)

    def ask(node: tuple[str, int] | None) -> Answer:
        place = str(socket) if node is None else f"{node[0]} port {node[1]}"
        try:
            body = (
                request(socket, "GET", question) if node is None else request_tcp(*node, question)
            )
            return Answer(place, Trace.model_validate_json(body))
        except ApiError as error:
            return Answer(place, error=str(error))
        except ValueError:
            return Answer(place, error=not_understood(place))

    here = [None] if not args.nodes or socket.exists() else []
    with ThreadPoolExecutor(_MOST_AT_ONCE) as threads:
        return list(threads.map(ask, [*here, *args.nodes]))


def differences(answers: Sequence[Answer]) -> list[str]:
    """Return what the nodes do not agree on, one text a fact."""
    traces = [answer.trace for answer in answers if answer.trace]
    facts: Mapping[str, list[str]] = {
        "outcome": [" ".join(filter(None, (t.outcome, t.reason))) for t in traces],
        "fingerprint": [t.service.fingerprint if t.service else "-" for t in traces],
        "backend": [_backend(t) for t in traces],
    }
    return [
        f"{name}: " + ", ".join(f"{t.node} {v}" for t, v in zip(traces, values, strict=True))
        for name, values in facts.items()
        if len(set(values)) > 1
    ]


def _json(answers: Sequence[Answer], found: Sequence[str]) -> str:
    """Return the node's trace itself, or those of several and whether they agree."""
    rows = [
        {"place": a.place, "error": a.error, "trace": a.trace and a.trace.model_dump(mode="json")}
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
        ("flow", _flow(trace)),
        ("worker", _worker(trace)),
        *_choice(trace),
        ("because", trace.because),
        *_way(trace),
        ("outcome", " ".join(filter(None, (trace.outcome, trace.reason)))),
    ]
    for name, text in facts:
        yield f"{name:<10}{text}".rstrip()


def _flow(trace: "Trace") -> str:
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
    yield "backend", _backend(trace)
    if trace.backend:
        standing = f"{trace.backend.condition} for {age(trace.backend.since)}"
        yield "standing", "; ".join(filter(None, (standing, trace.backend.health_reason)))


def _backend(trace: "Trace") -> str:
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
