"""``lbfwd trace --live``: sends a marked packet; tells which node, worker and backend took it."""

import argparse
import json
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lbfwd.cli.nodes import Place, at_once, places
from lbfwd.cli.trace import ask_all, backend_of, flow_of, outcome_of, rows

if TYPE_CHECKING:
    from lbfwd.flow import Flow
    from lbfwd.supervisor.live import LivePacket, LiveReport
    from lbfwd.supervisor.trace import Trace

RESOURCE = "/v1/trace/live"
SLACK_S = 5.0  # for an answer, behind the time that is waited for the packet
SERVED = ("", "echo_answered")  # reasons that are no loss
_BECAUSE = {
    "flow_table": "a flow table has its flow",
    "maglev_table": "the Maglev table names it",
    "nobody": "nobody was chosen",
}


@dataclass(frozen=True)
class Look:
    """One node's: what it foretold, then what it saw; or why it was not asked any further."""

    place: Place
    trace: "Trace | None" = None
    report: "LiveReport | None" = None
    error: str = ""

    @property
    def packet(self) -> "LivePacket | None":
        """The packet, where this node saw it."""
        return self.report.packet if self.report else None


def run_live(args: argparse.Namespace, flow: "Flow") -> int:
    """Send and tell; 1 when nobody took the packet as was foretold, or a node does not answer."""
    from lbfwd.net.inject import InjectError, way_to

    try:
        interface = way_to(flow.destination)
        looks = _look(args, flow)
    except InjectError as error:
        print(f"lbfwd trace: {error}", file=sys.stderr)
        return 1
    for look in looks:
        if look.error:
            print(look.error, file=sys.stderr)
    found = problems(looks, args.wait)
    if args.json:
        print(_json(looks, found))
    else:
        print("\n".join(lines(looks, found, f"{interface} to {flow.destination}")))
    return 1 if found or any(look.error for look in looks) else 0


def _look(args: argparse.Namespace, flow: "Flow") -> list[Look]:
    """Have the nodes foretell, then look; send; ask what they saw. Raises InjectError."""
    from lbfwd.live import TOKEN_BYTES, marked
    from lbfwd.net.inject import send

    token = secrets.token_bytes(TOKEN_BYTES)
    # All foretell before one looks: a node that is off costs seconds.
    foretold = [Look(a.place, a.trace, error=a.error) for a in ask_all(args, places(args))]
    looking = _each(foretold, lambda look: _watch(look, token, args.wait))
    if any(not look.error for look in looking):
        send(marked(flow, token), flow.destination)
    return _each(looking, lambda look: _report(look, token, args.wait))


def _each(looks: Sequence[Look], step: Callable[[Look], Look]) -> list[Look]:
    """Take those that still answer a step further, at once."""
    from lbfwd.api.client import ApiError

    def attempt(look: Look) -> Look:
        try:
            return look if look.error else step(look)
        except ApiError as error:
            return replace(look, error=str(error))

    return at_once(attempt, looks)


def _watch(look: Look, token: bytes, wait_s: float) -> Look:
    from lbfwd.supervisor.live import LiveWatch

    look.place.post(LiveWatch, RESOURCE, {"token": token.hex(), "seconds": wait_s})
    return look


def _report(look: Look, token: bytes, wait_s: float) -> Look:
    from lbfwd.supervisor.live import LiveReport

    resource = f"{RESOURCE}?token={token.hex()}"
    return replace(look, report=look.place.get(LiveReport, resource, wait_s + SLACK_S))


def problems(looks: Sequence[Look], wait_s: float) -> list[str]:
    """Return what is not as it should be, one text a fact."""
    seen = [(look, look.packet) for look in looks if look.packet]
    names = sorted({look.report.node for look, _ in seen if look.report})
    found = []
    if not seen and any(look.report for look in looks):
        found.append(f"no node saw the packet within {wait_s:g} s")
    if len(names) > 1:
        found.append(f"{', '.join(names)} saw it: it was duplicated on the way")
    for look, packet in seen:
        node = look.report.node if look.report else ""
        if packet.reason not in SERVED:
            found.append(f"{node}: {outcome_of(packet)}")
        found += [f"{node}: {text}" for text in surprises(look.trace, packet)]
    return list(dict.fromkeys(found))


def surprises(trace: "Trace | None", packet: "LivePacket") -> list[str]:
    """Return where the packet went another way than the node foretold."""
    if trace is None:
        return []
    pairs = [
        ("outcome", outcome_of(trace), outcome_of(packet)),
        ("backend", backend_of(trace), _backend(packet)),
    ]
    if trace.worker is not None:
        pairs.append(("worker", str(trace.worker), str(packet.worker)))
    return [
        f"{name}: {was} was foretold, but it was {took}" for name, was, took in pairs if was != took
    ]


def lines(looks: Sequence[Look], found: Sequence[str], way: str) -> Iterator[str]:
    """Return all as lines. ``way``: by which interface it was sent, and to whom."""
    for look in looks:
        if look.packet and look.report:
            yield from describe(look.report.node, look.trace, look.packet)
            yield ""
    for look in looks:
        if look.report and not look.packet:
            yield f"{look.report.node} did not see it"
    yield from found
    if any(look.report for look in looks) and not any(look.packet for look in looks):
        yield from _hints(way)


def describe(node: str, trace: "Trace | None", packet: "LivePacket") -> Iterator[str]:
    """Return a packet's way through a node as lines."""
    facts = [("node", f"{node}, generation {packet.generation}")]
    if trace:
        facts.append(("flow", flow_of(trace)))
    facts += [
        ("worker", f"{packet.worker} (cpu {packet.cpu}), received on {packet.received_on}"),
        ("service", packet.service or "none"),
        ("backend", _backend(packet)),
        ("because", _BECAUSE[packet.chosen_by]),
    ]
    if packet.sent_on:
        facts.append(("sent on", packet.sent_on))
    facts.append(("outcome", outcome_of(packet)))
    if trace:
        facts.append(("foretold", "; ".join(surprises(trace, packet)) or "the same"))
    return rows(facts)


def _backend(packet: "LivePacket") -> str:
    return f"{packet.pool}/{packet.backend} ({packet.address})" if packet.backend else "none"


def _hints(way: str) -> Iterator[str]:
    yield f"It was sent by {way}. What may have become of it:"
    yield "  another node took it: name all of them with --node"
    yield "  a router drops its source there (rp_filter, unicast RPF); send it where the client is"
    yield "  a firewall dropped it: its checksum is wrong, and it may know no such connection"


def _json(looks: Sequence[Look], found: Sequence[str]) -> str:
    nodes = [
        {
            "place": str(look.place),
            "error": look.error,
            "trace": look.trace and look.trace.model_dump(mode="json"),
            "packet": look.packet and look.packet.model_dump(mode="json"),
        }
        for look in looks
    ]
    agree = not found and not any(look.error for look in looks)
    return json.dumps({"agree": agree, "problems": list(found), "nodes": nodes})
