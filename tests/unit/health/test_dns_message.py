"""Queries and answers, with Scapy as the other side."""

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR

from lbfwd.health.dns_message import judge, query
from lbfwd.health.outcome import PASSED
from lbfwd.health.question import Dns

ASK = Dns("www.example.com", 28, 0)


def answer(**fields: object) -> bytes:
    """What a server would say to a query of id 4711, with these fields otherwise."""
    asked = DNSQR(qname="www.example.com", qtype="AAAA")
    known = {"id": 4711, "qr": 1, "rd": 1, "ra": 1, "qd": asked}
    return bytes(DNS(**(known | fields)))


@pytest.mark.parametrize(("name", "shown"), [("www.example.com", b"www.example.com."), (".", b".")])
def test_a_query_is_one_that_others_understand(name: str, shown: bytes) -> None:
    message = DNS(query(Dns(name, 28, 0), 4711))
    assert (message.id, message.qr, message.opcode, message.rd) == (4711, 0, 0, 1)
    assert (message.qdcount, message.ancount, message.nscount, message.arcount) == (1, 0, 0, 0)
    (asked,) = message.qd
    assert (asked.qname, asked.qtype, asked.qclass) == (shown, 28, 1)


def test_a_good_answer_passes() -> None:
    record = DNSRR(rrname="www.example.com", type="AAAA", rdata="2001:db8::1")
    assert judge(ASK, 4711, answer(an=record)) == PASSED
    assert judge(ASK, 4711, answer(qd=DNSQR(qname="WWW.Example.COM", qtype="AAAA"))) == PASSED


def test_the_code_has_to_be_the_wanted_one() -> None:
    found = judge(ASK, 4711, answer(rcode="name-error"))
    assert (found.name, found.detail) == ("wrong_rcode", "nxdomain, not noerror")
    assert judge(Dns("www.example.com", 28, 3), 4711, answer(rcode="name-error")) == PASSED
    assert judge(Dns("www.example.com", 28, 5), 4711, answer(rcode="refused", qd=[])) == PASSED
    assert judge(ASK, 4711, answer(rcode=11)).detail == "code 11, not noerror"


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        (b"", "0 bytes are no DNS message"),
        (b"x" * 11, "11 bytes are no DNS message"),
        (answer(id=4712), "an answer with id 4712, not 4711"),
        (answer(qr=0), "not an answer to a query"),
        (answer(opcode=2), "not an answer to a query"),
        (answer(qd=DNSQR(qname="www.example.org", qtype="AAAA")), "an answer to another question"),
        (answer(qd=DNSQR(qname="www.example.com", qtype="A")), "an answer to another question"),
        (answer(qd=[]), "an answer without the question"),
        (answer()[:20], "an answer to another question"),
        (bytes(range(200)), "not an answer to a query"),
    ],
)
def test_what_is_no_answer_is_said_to_be_none(message: bytes, detail: str) -> None:
    found = judge(ASK, 4711, message)
    assert (found.name, found.detail) == ("bad_answer", detail)
