"""A configuration of two parts: a node's own file, and what etcd holds."""

from pathlib import Path

import pytest

from lbfwd.config import ConfigError, parse
from lbfwd.config.load import load, read_etcd
from lbfwd.config.shared import Shared

OWN = """
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
name = "lb1"
interfaces = ["eth0"]
[workers]
cpus = [0]
"""
ETCD = '[etcd]\nendpoints = ["http://10.0.0.5:2379"]\n'
SHARED = """
[flows]
tcp_idle_s = 60
[[pool]]
name = "web"
backends = [{ address = "10.0.0.1" }]
[[service]]
vip = "192.0.2.10"
protocol = "tcp"
pool = "web"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lbfwd.toml"
    path.write_text(OWN + ETCD)
    return path


def shared(text: str = SHARED) -> Shared:
    return Shared(text, "/lbfwd/config in etcd", 7)


def problems(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, shared=shared(text))
    return list(map(str, caught.value.problems))


def test_both_parts_are_one_configuration(file: Path) -> None:
    assert load(file, shared=shared()) == parse(OWN + ETCD + SHARED, "one")


def test_a_file_without_etcd_stands_alone(file: Path) -> None:
    file.write_text(OWN)
    assert load(file, shared=shared()) == parse(OWN, "one")


def test_what_is_wrong_is_named_by_where_it_stands(file: Path) -> None:
    assert problems(file, SHARED.replace('"tcp"', '"tpc"')) == [
        '/lbfwd/config in etcd: service[0].protocol = "tpc": "tcp" or "udp"'
    ]
    file.write_text(OWN.replace("[0]", "[-1]") + ETCD)
    (problem,) = problems(file, SHARED)
    assert problem.startswith(f"{file}: workers.cpus[0] = -1: ")


def test_text_that_is_no_toml_is_named(file: Path) -> None:
    assert problems(file, "[[pool]\n")[0].startswith("/lbfwd/config in etcd: line 1, column 7: not")


def test_a_table_stands_in_one_part(file: Path) -> None:
    file.write_text(OWN + ETCD + "[flows]\n")
    assert problems(file, SHARED) == [
        f"/lbfwd/config in etcd: flows: stands in {file}, too: take it out of one of them"
    ]


@pytest.mark.parametrize("table", ["node", "workers", "metrics", "etcd", "fleet", "nonsense"])
def test_what_belongs_to_one_node_is_not_shared(file: Path, table: str) -> None:
    (problem,) = problems(file, f"[{table}]\n{SHARED}")
    assert problem.startswith(f"/lbfwd/config in etcd: {table}: not shared: its place is each")


@pytest.mark.parametrize("key", ["hash_key", "hash_key_file"])
def test_a_secret_is_refused_and_not_shown(file: Path, key: str) -> None:
    (problem,) = problems(file, f'{key} = "00112233445566778899aabbccddeeff"\n{SHARED}')
    assert f"{key} = (hidden, 32 characters): secrets stay out of etcd" in problem
    assert "00112233" not in problem


def test_where_etcd_is_can_be_read_although_the_rest_lacks_what_etcd_holds(tmp_path: Path) -> None:
    path = tmp_path / "lbfwd.toml"
    path.write_text(f'{OWN}{ETCD}[[service]]\nvip = "192.0.2.10"\nprotocol = "tcp"\npool = "x"\n')
    assert read_etcd(path).endpoints == ("http://10.0.0.5:2379",)
    path.write_text(OWN)
    assert read_etcd(path).endpoints == ()
    path.write_text(OWN + ETCD.replace("2379", "port"))
    with pytest.raises(ConfigError, match=r'etcd\.endpoints\[0\] = "http://10\.0\.0\.5:port"'):
        read_etcd(path)
