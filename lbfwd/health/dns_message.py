"""DNS queries and what their answers say (RFC 1035 section 4). Pure."""

import struct

from lbfwd.health.outcome import PASSED, Outcome
from lbfwd.health.question import Dns

_HEADER = struct.Struct("!HHHHHH")  # id, flags, counts of questions, answers, authorities, more
_RECURSION_DESIRED = 0x0100
_RESPONSE = 0x8000
_OPCODE = 0x7800
_RCODE = 0x000F
_CLASS_IN = 1
_RCODES = ("noerror", "formerr", "servfail", "nxdomain", "notimp", "refused")


def question_section(ask: Dns) -> bytes:
    """Return the one question: labels, type, class IN."""
    labels = [label.encode() for label in ask.name.strip(".").split(".") if label]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return name + struct.pack("!HH", ask.type, _CLASS_IN)


def query(ask: Dns, identity: int) -> bytes:
    """Return a query with this id, 16 bits."""
    return _HEADER.pack(identity, _RECURSION_DESIRED, 1, 0, 0, 0) + question_section(ask)


def judge(ask: Dns, identity: int, answer: bytes) -> Outcome:
    """Say whether a datagram is the answer to our query, and the wanted one."""
    if len(answer) < _HEADER.size:
        return Outcome("bad_answer", f"{len(answer)} bytes are no DNS message")
    if reason := _mismatch(ask, identity, answer):
        return Outcome("bad_answer", reason)
    rcode = _HEADER.unpack_from(answer)[1] & _RCODE
    if rcode != ask.rcode:
        return Outcome("wrong_rcode", f"{_name(rcode)}, not {_name(ask.rcode)}")
    return PASSED


def _mismatch(ask: Dns, identity: int, answer: bytes) -> str:
    """Return why a message is no answer to our query; empty: it is one."""
    found, flags, count, *_ = _HEADER.unpack_from(answer)
    if not flags & _RESPONSE or flags & _OPCODE:
        return "not an answer to a query"
    if found != identity:
        return f"an answer with id {found}, not {identity}"
    if count == 0:  # a server that could not read or would not take the query may leave it out
        return "" if flags & _RCODE else "an answer without the question"
    asked = question_section(ask)
    echoed = answer[_HEADER.size : _HEADER.size + len(asked)]
    # Names are equal whatever their case (RFC 1035 section 2.3.3).
    return "" if count == 1 and echoed.lower() == asked.lower() else "an answer to another question"


def _name(rcode: int) -> str:
    return _RCODES[rcode] if rcode < len(_RCODES) else f"code {rcode}"
