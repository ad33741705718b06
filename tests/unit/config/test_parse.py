"""One thing wrong gives one problem, with its key path, value and rule."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pydantic
import pytest

from lbfwd.config import (
    Backend,
    Config,
    ConfigError,
    HashKey,
    Node,
    Pool,
    Problem,
    Service,
    Workers,
    parse,
)
from lbfwd.config.values import is_prime
from tests.unit.config.samples import FILE, GOOD, KEY, accepted, change, places, refused

BACKENDS = '[{ address = "10.0.0.11" }, { name = "b", address = "10.0.0.12" }]'


def test_defaults_are_complete() -> None:
    config = accepted(GOOD)
    assert config.hash_key == HashKey(bytes.fromhex(KEY))
    assert (config.node.name, config.node.interfaces, config.node.source) == ("lb1", ("eth0",), ())
    assert config.workers.model_dump() == {
        "cpus": (0,),
        "ring": "v3",
        "rx_ring_mib": 64,
        "rx_block_kib": 128,
        "rx_retire_ms": 1,
        "busy_poll_us": 0,
        "tx_ring_frames": 4096,
        "qdisc_bypass": False,
        "fanout": "hash",
        "flows": 1048576,
    }
    (pool,) = config.pools
    assert (pool.name, pool.table_size, pool.health.type) == ("web", 65537, "none")
    assert [(b.name, b.address, b.weight) for b in pool.backends] == [
        ("10.0.0.11", IPv4Address("10.0.0.11"), 1),
        ("b", IPv4Address("10.0.0.12"), 1),
    ]
    (service,) = config.services
    assert (service.vip, service.protocol, service.port) == (IPv4Address("192.0.2.10"), "tcp", 80)
    assert service.affinity == "5-tuple"


def test_nothing_can_be_changed_afterwards() -> None:
    config = accepted(GOOD)
    with pytest.raises(pydantic.ValidationError):
        config.workers.flows = 1  # type: ignore[misc]
    assert isinstance(config.pools, tuple)
    assert isinstance(config.pools[0].backends, tuple)


def test_a_configuration_can_be_built_without_toml() -> None:
    pool = Pool(name="web", backends=(Backend(address=ip_address("10.0.0.11")),))
    service = Service(vip=ip_address("192.0.2.10"), protocol="tcp", port=80, pool="web", name="web")
    config = Config(
        hash_key=HashKey(bytes.fromhex(KEY)),
        node=Node(name="lb1", interfaces=("eth0",)),
        workers=Workers(cpus=(0,)),
        pools=(pool,),
        services=(service,),
    )
    assert config == accepted(change(', { name = "b", address = "10.0.0.12" }', ""))


def test_names_default_to_canonical_text() -> None:
    text = change('name = "web"\nvip = "192.0.2.10"', 'vip = "2001:DB8:0::0:1"')
    config = accepted(change('address = "10.0.0.11"', 'address = "2001:DB8::0:11"', text))
    assert config.services[0].name == "[2001:db8::1]:80/tcp"
    assert config.services[0].vip == IPv6Address("2001:db8::1")
    assert config.pools[0].backends[0].name == "2001:db8::11"


def test_a_service_without_port_answers_for_every_port_beside_those_with_one() -> None:
    extra = '[[service]]\nvip = "192.0.2.10"\nprotocol = "tcp"\npool = "web"\n'
    assert accepted(GOOD + extra).services[1].port is None
    assert accepted(GOOD + extra).services[1].name == "192.0.2.10:any/tcp"


@pytest.mark.parametrize(
    ("old", "new", "key", "value", "rule"),
    [
        # unknown keys
        ("cpus = [0]", "cpus = [0]\nring_mib = 1", "workers.ring_mib", "1", "mean rx_ring_mib"),
        ("cpus = [0]", "cpus = [0]\nrx-ring-mib = 1", "workers.rx-ring-mib", "1", "rx_ring_mib"),
        ("cpus = [0]", "cpus = [0]\nvip = 1", "workers.vip", "1", "its place is [[service]]"),
        ("cpus = [0]", 'cpus = [0]\n"a b" = 1', 'workers."a b"', "1", "known here: ring"),
        ("[node]", "pools = []\n[node]", "pools", "[]", "did you mean pool?"),
        # addresses
        ("192.0.2.10", "192.0.2.300", 'service "web".vip', '"192.0.2.300"', "not an IPv4 or IPv6"),
        ("192.0.2.10", "www.example", 'service "web".vip', '"www.example"', "not an IPv4 or IPv6"),
        ('"192.0.2.10"', "3221225994", 'service "web".vip', "3221225994", "in quotes"),
        ("192.0.2.10", "192.0.2.10/32", 'service "web".vip', '"192.0.2.10/32"', "prefix length"),
        ("192.0.2.10", "0.0.0.0", 'service "web".vip', '"0.0.0.0"', "unspecified"),
        ("192.0.2.10", "0.1.2.3", 'service "web".vip', '"0.1.2.3"', "0.0.0.0/8"),
        ("192.0.2.10", "::", 'service "web".vip', '"::"', "unspecified"),
        ("192.0.2.10", "224.0.0.5", 'service "web".vip', '"224.0.0.5"', "multicast"),
        ("192.0.2.10", "ff02::1", 'service "web".vip', '"ff02::1"', "multicast"),
        ("192.0.2.10", "255.255.255.255", 'service "web".vip', '"255.255.255.255"', "broadcast"),
        ("192.0.2.10", "127.0.0.2", 'service "web".vip', '"127.0.0.2"', "loopback"),
        ("192.0.2.10", "::1", 'service "web".vip', '"::1"', "loopback"),
        ("192.0.2.10", "fe80::1", 'service "web".vip', '"fe80::1"', "link-local"),
        ("192.0.2.10", "::ffff:192.0.2.10", 'service "web".vip', '"::ffff:192.0.2.10"', "mapped"),
        ("10.0.0.12", "fe80::1%eth0", 'pool "web".backends[1].address', '"fe80::1%eth0"', "zone"),
        ("10.0.0.12", "169.254.1.1", 'pool "web".backends[1].address', '"169.254.1.1"', "local"),
        # services
        ('"tcp"', '"sctp"', 'service "web".protocol', '"sctp"', '"tcp" or "udp"'),
        ("port = 80", "port = 0", 'service "web".port', "0", "from 1 to 65535"),
        ("port = 80", "port = 65536", 'service "web".port', "65536", "from 1 to 65535"),
        ("port = 80", "port = 80.0", 'service "web".port', "80.0", "a whole number"),
        ("port = 80", 'port = "80"', 'service "web".port', '"80"', "a whole number"),
        ("port = 80", "port = true", 'service "web".port', "true", "a whole number"),
        ('pool = "web"', 'pool = "wbe"', 'service "web".pool', '"wbe"', 'did you mean "web"'),
        ('pool = "web"', 'pool = "x"', 'service "web".pool', '"x"', "there are: web"),
        ('pool = "web"', "", 'service "web".pool', "(missing)", "required"),
        ("port = 80", 'affinity = "ip"', 'service "web".affinity', '"ip"', '"5-tuple" or "source"'),
        # pools
        (BACKENDS, "[]", 'pool "web".backends', "[]", "cannot be empty"),
        (BACKENDS, "3", 'pool "web".backends', "3", "an array"),
        (BACKENDS, '["10.0.0.1"]', 'pool "web".backends[0]', '"10.0.0.1"', "a table"),
        ('"b",', '"b", weight = -1,', 'pool "web".backends[1].weight', "-1", "from 0 to 65535"),
        ('"b",', '"b", weight = 65536,', 'pool "web".backends[1].weight', "65536", "0 to 65535"),
        ('"b",', '"b c",', 'pool "web".backends[1].name', '"b c"', "a name is 1 to 64"),
        ('"b",', '"-b",', 'pool "web".backends[1].name', '"-b"', "begins with no -"),
        ('"b",', '"10.0.0.11",', 'pool "web".backends[1].name', '"10.0.0.11"', "backends[0]"),
        ("10.0.0.12", "10.0.0.11", 'pool "web".backends[1].address', '"10.0.0.11"', "backends[0]"),
        ("10.0.0.12", "192.0.2.10", 'pool "web".backends[1].address', '"192.0.2.10"', "the VIP of"),
        ("backends", "table_size = 65536\nbackends", 'pool "web".table_size', "65536", "prime"),
        (
            "backends",
            "table_size = 16777259\nbackends",
            'pool "web".table_size',
            "16777259",
            "up to",
        ),
        ("backends", "table_size = 1\nbackends", 'pool "web".table_size', "1", "prime"),
        ("backends", 'health.type = "htp"\nbackends', 'pool "web".health.type', '"htp"', '"none"'),
        # node
        ('["eth0"]', "[]", "node.interfaces", "[]", "cannot be empty"),
        ('["eth0"]', '["a/b"]', "node.interfaces[0]", '"a/b"', "1 to 15 characters"),
        ('["eth0"]', '["a234567890123456"]', "node.interfaces[0]", '"a234567890123456"', "15"),
        ('["eth0"]', '["eth0", "eth0"]', "node.interfaces", '["eth0", "eth0"]', "eth0 stands"),
        ('interfaces = ["eth0"]', "", "node.interfaces", "(missing)", "required"),
        ('"lb1"', '"lb 1"', "node.name", '"lb 1"', "a name is"),
        (
            'name = "lb1"',
            'source = ["10.0.0.1", "10.0.0.2"]',
            "node.source",
            '["10.0.0.1", "10.0.0.2"]',
            "one address of each",
        ),
        ('name = "lb1"', 'source = ["192.0.2.10"]', "node.source[0]", '"192.0.2.10"', "the VIP of"),
        # workers
        ("cpus = [0]", "", "workers.cpus", "(missing)", "required"),
        ("cpus = [0]", "cpus = []", "workers.cpus", "[]", "cannot be empty"),
        ("cpus = [0]", "cpus = [-1]", "workers.cpus[0]", "-1", "a whole number from 0"),
        ("cpus = [0]", "cpus = [0, 0]", "workers.cpus", "[0, 0]", "0 stands there more than once"),
        ("cpus = [0]", 'cpus = "0"', "workers.cpus", '"0"', "an array"),
        ("cpus = [0]", 'cpus = [0]\nring = "v1"', "workers.ring", '"v1"', '"v3" or "v2"'),
        ("cpus = [0]", "cpus = [0]\nrx_ring_mib = 0", "workers.rx_ring_mib", "0", "from 1"),
        ("cpus = [0]", "cpus = [0]\nrx_block_kib = 64", "workers.rx_block_kib", "64", "from 128"),
        ("cpus = [0]", "cpus = [0]\nrx_block_kib = 1000", "workers.rx_block_kib", "1000", "fill"),
        ("cpus = [0]", "cpus = [0]\nrx_block_kib = 130", "workers.rx_block_kib", "130", "page"),
        (
            "cpus = [0]",
            "cpus = [0]\nrx_ring_mib = 1\nrx_block_kib = 1024",
            "workers.rx_block_kib",
            "1024",
            "two",
        ),
        ("cpus = [0]", "cpus = [0]\nrx_retire_ms = 0", "workers.rx_retire_ms", "0", "from 1"),
        ("cpus = [0]", "cpus = [0]\nbusy_poll_us = -1", "workers.busy_poll_us", "-1", "from 0"),
        (
            "cpus = [0]",
            "cpus = [0]\ntx_ring_frames = 1000",
            "workers.tx_ring_frames",
            "1000",
            "two",
        ),
        (
            "cpus = [0]",
            "cpus = [0]\nqdisc_bypass = 1",
            "workers.qdisc_bypass",
            "1",
            "true or false",
        ),
        ("cpus = [0]", 'cpus = [0]\nfanout = "rr"', "workers.fanout", '"rr"', '"queue"'),
        ("cpus = [0]", "cpus = [0]\nflows = 1000", "workers.flows", "1000", "from 1024"),
        # the wrong kind of table
        ("[[pool]]", "[pool]", "pool", "(a table)", "write [[pool]]"),
        ("[workers]", "[[workers]]", "workers", "(an array of arrays or tables)", "a table"),
    ],
)
def test_one_mistake_is_one_problem(old: str, new: str, key: str, value: str, rule: str) -> None:
    (problem,) = refused(change(old, new))
    assert (problem.file, problem.key, problem.value) == (FILE, key, value)
    assert rule in problem.rule
    assert str(problem) == f"{FILE}: {key} = {value}: {problem.rule}"


@pytest.mark.parametrize(
    ("text", "place", "rule"),
    [
        ("[node\n", "line 1, column 6", "Expected ']'"),
        ("a = 1\na = 2\n", "line 2, column 6", "overwrite"),
        ("a = ?", "line 1, column 5", "Invalid value"),
        ("a = ", "end of document", "Invalid value"),
        ('a = "', "end of document", "Unterminated string"),
        (f"a = {'9' * 5000}", "", "4300"),
        (f"a = {'[' * 100_000}", "", "nested too deeply"),
    ],
)
def test_toml_errors_name_the_place(text: str, place: str, rule: str) -> None:
    (problem,) = refused(text)
    assert (problem.file, problem.key, problem.value) == (FILE, place, "")
    assert rule in problem.rule


def test_everything_is_reported_at_once_and_nothing_twice() -> None:
    text = """
        hash_key = "xyz"
        [node]
        interfaces = ["eth0", 3]
        [workers]
        cpus = [0, 0]
        rings = "v3"
        rx_block_kib = 1000
        [[pool]]
        name = "web"
        table_size = 4
        backends = [
          { address = "10.0.0.1", weight = 65536 }, { address = "10.0.0.1" },
          { adress = "10.0.0.2" },
        ]
        [pool.health]
        type = "gopher"
        port = 80
        [[pool]]
        name = "tiny"
        table_size = 2
        backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }, { address = "::1" }]
        [[service]]
        vip = "192.0.2.10"
        protocol = "tcp"
        port = 80
        pool = "wep"
        [[service]]
        vip = "192.0.2.10"
        protocol = "tcp"
        port = 80
        pool = "web"
        [[service]]
        vip = "bad"
        protocol = "tcp"
        port = 0
        pool = "nowhere"
    """
    assert sorted(places(text)) == sorted(
        [
            ("hash_key", "(hidden, 3 characters)"),
            ("node.interfaces[1]", "3"),
            ("workers.cpus", "[0, 0]"),
            ("workers.rings", '"v3"'),
            ("workers.rx_block_kib", "1000"),
            ('pool "web".table_size', "4"),
            ('pool "web".backends[0].weight', "65536"),
            ('pool "web".backends[1].address', '"10.0.0.1"'),
            ('pool "web".backends[2].adress', '"10.0.0.2"'),
            ('pool "web".backends[2].address', "(missing)"),
            ('pool "web".health.type', '"gopher"'),
            ('pool "tiny".table_size', "2"),
            ('pool "tiny".backends[2].address', '"::1"'),
            ("service[0].pool", '"wep"'),
            ("service[1]", '"192.0.2.10:80/tcp"'),
            ("service[2].vip", '"bad"'),
            ("service[2].port", "0"),
            ("service[2].pool", '"nowhere"'),
        ]
    )


def test_two_pools_or_services_of_one_name_are_told_apart_by_index() -> None:
    pool = GOOD[GOOD.index("[[pool]]") : GOOD.index("[[service]]")]
    service = change("port = 80", "port = 81")[GOOD.index("[[service]]") :]
    assert places(GOOD + pool + service) == [
        ("pool[1].name", '"web"'),
        ("service[1].name", '"web"'),
    ]


def test_the_same_service_in_another_spelling_is_the_same_service() -> None:
    first = change("192.0.2.10", "2001:db8::1")
    second = GOOD[GOOD.index("[[service]]") :].replace("192.0.2.10", "2001:DB8:0:0::1")
    (problem,) = refused(first + change('name = "web"\n', 'name = "again"\n', second))
    assert (problem.key, problem.value) == ('service "again"', '"[2001:db8::1]:80/tcp"')
    assert problem.rule == 'same VIP, protocol and port as service "web"'


def test_a_default_name_can_clash_with_a_given_one() -> None:
    extra = '[[service]]\nname = "192.0.2.10:81/tcp"\nvip = "192.0.2.11"\nprotocol = "tcp"\n'
    extra += 'pool = "web"\n[[service]]\nvip = "192.0.2.10"\nprotocol = "tcp"\nport = 81\n'
    assert places(GOOD + extra + 'pool = "web"\n') == [("service[2].name", '"192.0.2.10:81/tcp"')]


def test_more_backends_than_a_pool_can_hold() -> None:
    addresses = ", ".join(
        f'{{ address = "10.{i >> 16}.{i >> 8 & 255}.{i & 255}" }}' for i in range(65536)
    )
    (problem,) = refused(change(BACKENDS, f"[{addresses}]"))
    assert problem.key == 'pool "web".backends'
    assert problem.rule == "at most 65535 entries, here are 65536"


def test_flags_replace_keys_and_are_named_in_errors() -> None:
    config = accepted(GOOD, workers={"cpus": (1, 2), "ring": "v2", "qdisc_bypass": True})
    assert (config.workers.cpus, config.workers.ring) == ((1, 2), "v2")
    assert config.workers.qdisc_bypass is True
    problems = refused(GOOD, workers={"cpus": (1, 1), "rx_ring_mib": 0, "rx_block_kib": 130})
    assert sorted((p.file, p.key, p.value) for p in problems) == [
        ("command line", "--cpus", "[1, 1]"),
        ("command line", "--rx-block-kib", "130"),
        ("command line", "--rx-ring-mib", "0"),
    ]


def test_flags_can_stand_for_the_whole_workers_table() -> None:
    text = change("[workers]\ncpus = [0]\n", "")
    assert accepted(text, workers={"cpus": (3,)}).workers.cpus == (3,)
    assert places(text) == [("workers", "(missing)")]


def test_a_flag_replaces_what_is_wrong_in_the_file() -> None:
    assert accepted(change("cpus = [0]", 'cpus = "all"'), workers={"cpus": (1,)}).workers.cpus == (
        1,
    )


def test_the_key_of_a_file_is_given_to_parse() -> None:
    text = change(f'hash_key = "{KEY}"', 'hash_key_file = "key"')
    assert accepted(text, hash_key=bytes(range(16))).hash_key.raw == bytes(range(16))
    assert places(text) == [("hash_key", "(missing)")]


def test_config_error_lists_every_problem() -> None:
    problems = (Problem("f", "k", "v", "r"), Problem("f", "", "", "r2"))
    assert str(ConfigError(problems)) == "f: k = v: r\nf: r2"


def test_primes_against_a_sieve() -> None:
    limit = 20_000
    sieve = [False, False, *[True] * limit]
    for i in range(2, limit):
        if sieve[i]:
            sieve[2 * i :: i] = [False] * len(sieve[2 * i :: i])
    assert [n for n in range(limit) if is_prime(n)] == [n for n in range(limit) if sieve[n]]


def test_a_large_configuration_is_read_in_reasonable_time() -> None:
    backends = ", ".join(f'{{ address = "10.{i >> 8}.{i & 255}.1" }}' for i in range(10_000))
    config = parse(change(BACKENDS, f"[{backends}]"), FILE)
    assert len(config.pools[0].backends) == 10_000


def test_the_names_of_our_fields_are_no_toml_keys() -> None:
    assert places(change("[[pool]]", "[[pools]]")) == [
        ("pools", "(an array of arrays or tables)"),
        ('service "web".pool', '"web"'),
    ]


def test_services_with_one_bad_protocol_do_not_clash_as_well() -> None:
    first = change("tcp", "sctp")
    second = first[first.index("[[service]]") :].replace('"web"\nvip', '"again"\nvip')
    assert places(first + second) == [
        ('service "web".protocol', '"sctp"'),
        ('service "again".protocol', '"sctp"'),
    ]


def test_a_table_with_one_slot_a_backend_is_enough() -> None:
    config = accepted(change("backends", "table_size = 2\nbackends"))
    assert (config.pools[0].table_size, len(config.pools[0].backends)) == (2, 2)
