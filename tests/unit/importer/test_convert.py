"""Whole files: what becomes of them, and what is said."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbfwd.cli.main import main
from lbfwd.config.machine import Machine
from tests.unit.importer.texts import DUAL_STACK, imported, virtual


def notes_of(notes: list[str], word: str) -> list[str]:
    return [note for note in notes if word in note]


def test_a_file_of_a_real_site(tmp_path: Path) -> None:
    document, notes = imported(tmp_path, DUAL_STACK)
    assert document["node"]["interfaces"] == ["bond0.100"]
    web, dns = document["pool"]
    assert web == {
        "name": "192.0.2.10:443/tcp",
        "all_down": "withdraw",
        "backends": [{"address": "10.0.0.11", "weight": 3}, {"address": "10.0.0.12"}],
        "health": {
            "type": "https",
            "verify": False,
            "path": "/health?full=1",
            "host": "www.example.com",
            "status": ["200", "204", "300-302"],
            "via": "tunnel",
            "interval_ms": 5000,
            "timeout_ms": 2500,
            "rise": 1,
            "fall": 3,
        },
    }
    assert dns["backends"] == [{"address": "2001:db8:2::11"}, {"address": "10.0.0.12"}]
    assert dns["health"]["query"] == "www.example.com"
    assert (dns["health"]["query_type"], dns["health"]["fall"]) == ("A", 4)
    assert document["service"] == [
        {
            "vip": "192.0.2.10",
            "protocol": "tcp",
            "port": 443,
            "pool": "192.0.2.10:443/tcp",
            "affinity": "source",
            "empty": "reject",
        },
        {
            "vip": "2001:db8::10",
            "protocol": "udp",
            "port": 53,
            "pool": "[2001:db8::10]:53/udp",
            "empty": "reject",
        },
    ]
    at = [note.split(":")[1] for note in notes]
    wanted = ["2", "5", "11", "12", "13", "15", "16", "19", "20", "47", "49", "51", "59"]
    assert sorted(set(at), key=lambda lines: int(lines.split(",")[0])) == wanted


@pytest.mark.parametrize(
    ("algorithm", "affinity", "weight"),
    [
        ("lb_algo rr", None, 1),
        ("lvs_sched lc", None, 1),
        ("lb_algo wlc", None, 7),
        ("", None, 7),
        ("lb_algo sh", "source", 7),
        ("lb_algo sh\nsh-port", None, 7),
        ("lb_algo mh", "source", 7),
        ("lb_algo mh\nmh-port", None, 7),
        ("lb_algo mh\nmh-port\npersistence_timeout", "source", 7),
    ],
)
def test_schedulers(tmp_path: Path, algorithm: str, affinity: str | None, weight: int) -> None:
    document, notes = imported(tmp_path, virtual(algorithm, server="weight 7"))
    assert document["service"][0].get("affinity") == affinity
    assert document["pool"][0]["backends"][0].get("weight", 1) == weight
    assert notes_of(notes, "lb_algo")


@pytest.mark.parametrize(
    ("method", "says"),
    [("lb_kind NAT", "translation"), ("lvs_method DR", "MAC"), ("lb_kind TUN", "that tunnel")],
)
def test_methods(tmp_path: Path, method: str, says: str) -> None:
    _, notes = imported(tmp_path, virtual(method))
    (note,) = notes_of(notes, "lb_kind")
    assert note.startswith("k:2: ")
    assert says in note


def test_a_method_of_one_server_is_named_too(tmp_path: Path) -> None:
    _, notes = imported(tmp_path, virtual("lb_kind DR", server="lvs_method TUN"))
    assert [note.split(":")[1] for note in notes_of(notes, "lb_kind")] == ["2", "4"]


def test_without_a_protocol_it_is_udp_as_in_keepalived(tmp_path: Path) -> None:
    document, notes = imported(
        tmp_path, "virtual_server 192.0.2.1 53 {\nreal_server 10.0.0.1 53\n}"
    )
    assert document["service"][0]["protocol"] == "udp"
    assert notes_of(notes, "k:1: virtual_server 192.0.2.1 53: no protocol: UDP")


def test_groups_and_ranges(tmp_path: Path) -> None:
    group = """virtual_server_group web {
        192.0.2.1 80
        192.0.2.8-10 443
        192.0.2.254-192.0.3.1
        2001:db8::a-c 80
        192.0.2.32/30 80
        192.0.2.1 80
        fwmark 3
        192.0.2.9-7 80
        host.example.com 80
    }
    virtual_server_group nobody { 192.0.2.77 80 }
    virtual_server group web { real_server 10.0.0.1 80 { TCP_CHECK { connect_port 8080 } }
    protocol TCP }
    virtual_server group other { real_server 10.0.0.1 80 }
    """
    document, notes = imported(tmp_path, group)
    places = {(service["vip"], service.get("port")) for service in document["service"]}
    assert places == {
        ("192.0.2.1", 80),
        *((f"192.0.2.{n}", 443) for n in (8, 9, 10)),
        *((vip, None) for vip in ("192.0.2.254", "192.0.2.255", "192.0.3.0", "192.0.3.1")),
        *((f"2001:db8::{n}", 80) for n in "abc"),
        *((f"192.0.2.{n}", 80) for n in (32, 33, 34, 35)),
    }
    assert document["pool"][0]["name"] == "web/tcp"
    assert document["pool"][0]["health"]["port"] == 8080
    lines = {note.split(":")[1] for note in notes_of(notes, "left out")}
    assert lines == {"8", "9", "10", "12", "13", "15"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (virtual(head="fwmark 1"), "k:1: virtual_server fwmark 1: no equivalent"),
        (virtual("protocol SCTP"), "k:2: virtual_server 192.0.2.10 80: protocol SCTP: no equi"),
        (virtual(head="127.0.0.1 80"), "a loopback address"),
        (virtual(head="192.0.2.10 99999"), "a port is a number"),
        (virtual(head="10.0.0.11 80"), "it is a VIP, too"),
        (virtual(head="web 80"), "not appear to be an IPv4 or IPv6 address"),
        ("virtual_server {\n}", "not appear"),
        ("virtual_server 192.0.2.10 80 { real_server 0.0.0.0 80 }", "the unspecified address"),
        ("virtual_server group {\n}", "no virtual_server_group has this name"),
    ],
)
def test_what_has_no_equivalent_is_named_and_left_out(tmp_path: Path, text: str, says: str) -> None:
    document, notes = imported(tmp_path, text)
    assert "service" not in document
    assert notes_of(notes, says)


def test_what_stands_there_twice_is_taken_once(tmp_path: Path) -> None:
    server = "real_server 10.0.0.11 8080 {}"
    text = f"{virtual(server)}\n{virtual()}\n{virtual('protocol UDP')}"
    document, notes = imported(tmp_path, text)
    assert [pool["name"] for pool in document["pool"]] == ["192.0.2.10:80/tcp", "192.0.2.10:80/udp"]
    assert len(document["pool"][0]["backends"]) == 1
    assert notes_of(notes, "one backend of a pool")
    assert notes_of(notes, "a service has this place already")
    assert notes_of(notes, "k:2: real_server 10.0.0.11 8080: ports are not changed")


def test_every_key_of_the_manual_has_a_reason(tmp_path: Path) -> None:
    keys = ["alpha", "omega", "quorum 3", "hysteresis 1", "quorum_up /bin/a", "ops", "ha_suspend",
            "persistence_granularity 255.255.0.0", "smtp_alert on", "snmp_name x", "warmup 3",
            "sorry_server 10.0.0.9 80", "sorry_server_inhibit", "persistence_engine sip",
            "flag-1", "ip_family inet", "inhibit_on_failure"]  # fmt: skip
    own = ["notify_up /bin/a", "uthreshold 10", "lthreshold 1", "snmp_name y", "inhibit_on_failure"]
    _, notes = imported(tmp_path, virtual(*keys, server="\n".join(own)))
    for key in [*keys, *own]:
        assert notes_of(notes, key), key
    assert not notes_of(notes, "not known")
    _, notes = imported(tmp_path, virtual("smtp_alert off", "keyword_of_tomorrow 1"))
    assert notes_of(notes, "k:3: keyword_of_tomorrow 1: not known")
    assert not notes_of(notes, "smtp_alert")


def test_large_pools_get_a_large_table(tmp_path: Path) -> None:
    servers = [f"real_server 10.0.{n // 250}.{n % 250 + 1} 80 {{}}" for n in range(700)]
    document, _ = imported(tmp_path, virtual(*servers, head="192.0.2.1 80"))
    assert document["pool"][0]["table_size"] == 655373


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "k.conf").write_text(DUAL_STACK)
    return tmp_path


def test_the_command_writes_a_file_that_check_accepts(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine({"bond0.100": 1, "lo": 772}, frozenset({0}), frozenset({0}))
    monkeypatch.setattr("lbfwd.cli.check.this_machine", lambda: machine)
    out = site / "lbfwd.toml"
    assert main(["import", str(site / "k.conf"), "-o", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{site / 'k.conf'}:15: quorum 2: no equivalent" in captured.err
    key = site / "key"
    key.write_text("00112233445566778899aabbccddeeff")
    key.chmod(0o600)
    text = out.read_text().replace("/etc/lbfwd/hash_key", str(key))
    out.write_text(text)
    assert main(["check", str(out)]) == 0
    assert "good: 2 services, 2 pools, 4 backends" in capsys.readouterr().out
    assert main(["import", str(site / "k.conf"), "-o", str(out)]) == 1, "never over a file"
    assert f"{out}: cannot be written: File exists" in capsys.readouterr().err
    assert out.read_text() == text


def test_the_command_prints(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(site / "k.conf")]) == 0
    assert len(tomllib.loads(capsys.readouterr().out)["service"]) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("virtual_server 192.0.2.1 80 {\n real_server 10.0.0.1 80 {\n}", "k.conf:1: virtual_se"),
        ("a {\n}\n}", "k.conf:3: }: closes nothing"),
        ("{ a", "k.conf:1: {: nothing stands before it"),
        ("$A=x $A\n$A", "k.conf:2: parameters that refer to each other"),
        ("include k.conf", "k.conf: includes itself"),
    ],
)
def test_what_cannot_be_read_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "k.conf").write_text(text)
    assert main(["import", str(tmp_path / "k.conf"), "-o", str(tmp_path / "out")]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(tmp_path / "none")]) == 1
    assert "none: cannot be read: No such file or directory" in capsys.readouterr().err
