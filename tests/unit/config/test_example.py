"""deploy/lbfwd.toml: it is valid, and shows every key with its true default."""

import re
from pathlib import Path

from lbfwd.config import parse
from lbfwd.config.announce import Announce
from lbfwd.config.fleet import EtcdSettings, Fleet, FleetNode, Register, Registration
from lbfwd.config.health import Health
from lbfwd.config.model import (
    Admin,
    Backend,
    Flows,
    Metrics,
    Node,
    Pool,
    Service,
    Worker,
    Workers,
)

TABLES = (
    Node,
    Workers,
    Worker,
    Flows,
    Metrics,
    Admin,
    Announce,
    Fleet,
    FleetNode,
    Registration,
    EtcdSettings,
    Pool,
    Backend,
    Register,
    Health,
    Service,
)
FILE = Path(__file__).parents[3] / "deploy" / "lbfwd.toml"
EXAMPLE = FILE.read_text()
KEY = bytes(range(16))


def uncommented() -> str:
    """Switch on every commented default."""
    return re.sub(r"^# (\w+ = (?!\"…\").*)$", r"\1", EXAMPLE, flags=re.MULTILINE)


def test_it_is_valid() -> None:
    config = parse(EXAMPLE, str(FILE), hash_key=KEY)
    assert [service.name for service in config.services] == ["web", "web-v6"]


def test_commented_keys_show_the_defaults() -> None:
    assert uncommented().count("\nflows = ") == 1
    shown = uncommented().replace("\nsource_entropy = ", "\n# source_entropy = ")  # off by default
    assert parse(shown, "f", hash_key=KEY) == parse(EXAMPLE, "f", hash_key=KEY)
    parse(uncommented(), "f", hash_key=KEY)


def test_every_key_is_there() -> None:
    keys = {"hash_key", "hash_key_file"}
    for table in TABLES:
        keys |= set(table.model_fields)
    keys -= {"health", "registration"}  # tables: [pool.health], [pool.register]
    shown = set(re.findall(r"(\w+) = ", EXAMPLE))
    assert shown == keys
