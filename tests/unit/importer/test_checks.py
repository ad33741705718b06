"""Checkers: what is asked afterwards, how often, and which way."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.importer.texts import imported, virtual

TIMES = {"interval_ms": 60_000, "timeout_ms": 5000, "rise": 1, "fall": 2}


@pytest.mark.parametrize(
    ("checker", "wanted"),
    [
        ("TCP_CHECK { }", {"type": "tcp", "via": "tunnel"}),
        ("TCP_CHECK {\nconnect_port 80\n}", {"type": "tcp", "via": "tunnel"}),
        ("TCP_CHECK {\nconnect_port 8080\n}", {"type": "tcp", "port": 8080, "via": "direct"}),
        ("SMTP_CHECK {\nhelo_name x\n}", {"type": "tcp", "port": 25, "via": "direct"}),
        ("PING_CHECK", {"type": "tcp", "via": "tunnel"}),
        ('MISC_CHECK {\nmisc_path "/bin/true a b"\n}', {"type": "tcp", "via": "tunnel", "fall": 1}),
        ("MISC_CHECK {\n}\nHTTP_GET {\n}", {"type": "http", "path": "/", "via": "tunnel"}),
        (
            "HTTP_GET {\nurl {\npath /a\nregex status=ok\n}\nurl {\npath /b\n}\n}",
            {"type": "http", "path": "/a", "body": "status=ok", "via": "tunnel"},
        ),
        (
            "HTTP_GET {\nurl {\npath a\nregex ^ok$\nstatus_code 200 200 700\n}\n}",
            {"type": "http", "path": "/", "status": ["200"], "via": "tunnel"},
        ),
        ("DNS_CHECK {\n}", {"type": "dns", "query": ".", "query_type": "SOA", "via": "tunnel",
                            "fall": 4}),
        ("DNS_CHECK {\ntype CNAME\nretry 0\n}", {"type": "dns", "query": ".", "query_type": "SOA",
                                                "via": "tunnel", "fall": 1}),
        (
            "UDP_CHECK {\npayload Ab12f 3 456 546443123\nrequire_reply 00ff\n}",
            {"type": "udp", "payload": "hex:ab120f0345065464431203", "expect": "hex:00ff",
             "via": "tunnel"},
        ),
        ("UDP_CHECK {\nrequire_reply 0x\n}", {"type": "udp", "via": "tunnel"}),
    ],
)  # fmt: skip
def test_kinds(tmp_path: Path, checker: str, wanted: dict[str, Any]) -> None:
    document, _ = imported(tmp_path, virtual(server=checker))
    assert document["pool"][0]["health"] == TIMES | wanted


def test_without_a_checker_nothing_is_checked(tmp_path: Path) -> None:
    document, _ = imported(tmp_path, virtual())
    assert "health" not in document["pool"][0]


def test_the_innermost_setting_counts(tmp_path: Path) -> None:
    server = "delay_loop 4\nretry 7\nTCP_CHECK {\nretry 1\n}"
    document, _ = imported(tmp_path, virtual("delay_loop 9", "connect_timeout 2", server=server))
    health = document["pool"][0]["health"]
    assert [health[key] for key in TIMES] == [4000, 2000, 1, 2]


def test_times_out_of_range_are_brought_into_it(tmp_path: Path) -> None:
    checker = "TCP_CHECK {\nconnect_timeout 0.001\nretry 500\ndelay_loop 0.01\n}"
    document, notes = imported(tmp_path, virtual(server=checker))
    health = document["pool"][0]["health"]
    assert [health[key] for key in TIMES] == [100, 10, 1, 100]
    assert {note.split(":")[1] for note in notes if " here: " in note} == {"4", "5", "6"}
    document, notes = imported(tmp_path, virtual("delay_loop soon", server="TCP_CHECK"))
    assert document["pool"][0]["health"] == TIMES | {"type": "tcp", "via": "tunnel"}
    assert any("k:2: delay_loop soon: no time: 60000 ms" in note for note in notes)


def test_how_much_later_a_dead_server_is_noticed_is_said(tmp_path: Path) -> None:
    checker = "TCP_CHECK {\nretry 2\ndelay_before_retry 1\n}"
    _, notes = imported(tmp_path, virtual("delay_loop 10", server=checker))
    said = "out after 30 s (interval_ms * fall), in keepalived after 12 s"
    assert any(said in note for note in notes)
    _, notes = imported(tmp_path, virtual("delay_loop 1", server=checker))
    assert not any("interval_ms * fall" in note for note in notes)


def test_a_pool_has_the_check_that_most_servers_have(tmp_path: Path) -> None:
    servers = [
        "real_server 10.0.0.1 80 { HTTP_GET { } }",
        "real_server 10.0.0.2 80 { TCP_CHECK { } }",
        "real_server 10.0.0.3 80 { TCP_CHECK { } }",
        "real_server 10.0.0.4 80 { weight 1 }",
        "real_server 10.0.0.5 80 { TCP_CHECK { connect_ip 10.9.9.9",
        "} }",
    ]
    document, notes = imported(tmp_path, virtual(*servers))
    assert document["pool"][0]["health"]["type"] == "tcp"
    assert "k:2: HTTP_GET: a pool has one check: that of line 3" in notes
    assert any(note.startswith("k:5: real_server 10.0.0.4 80: checked, too") for note in notes)
    assert "k:6: connect_ip 10.9.9.9: each backend is asked itself" in notes


def test_services_of_every_port_need_a_port_to_check(tmp_path: Path) -> None:
    text = "virtual_server 192.0.2.1 0 { real_server 10.0.0.1 { TCP_CHECK { connect_port 22"
    document, _ = imported(tmp_path, f"{text}\n}} }} }}")
    assert document["pool"][0]["health"]["port"] == 22
    assert document["pool"][0]["health"]["via"] == "tunnel"
    document, notes = imported(tmp_path, text.replace("connect_port 22", "") + "\n} } }")
    assert "health" not in document["pool"][0]
    assert any("no port to check is known" in note for note in notes)
