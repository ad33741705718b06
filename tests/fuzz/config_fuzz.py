"""Fuzzes the configuration: ``python -m tests.fuzz.config_fuzz [SECONDS [SEED]]``.

Texts are mutated by characters, words and lines. What guides it is what an operator would see: a
text that brings a new combination of rules to light is mutated further. Prints a summary as JSON.
"""

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from lbfwd.config import Config, ConfigError, parse
from lbfwd.config.warn import warnings
from tests.unit.config.samples import GOOD

FILE = "fuzz.toml"
SECRET = "c0ffee00c0ffee11c0ffee22c0ffee33"
EXAMPLE = Path(__file__).parents[2] / "deploy" / "lbfwd.toml"
FLOW_S = range(1, 32768)
KEPT = 2000  # texts that are mutated further, at most, of either kind
FROM_GOOD = 0.7

VALUES = (
    "0", "1", "-1", "65535", "65536", "65537", "655373", "4294967296", "1e9", "nan", "true", '""',
    '"10.0.0.1"', '"192.0.2.10"', '"::1"', '"fe80::1"', '"2001:db8::10"', '"0.0.0.0/0"', '"::/0"',
    '"10.9.0.0/16"', '"2001:db8:9::/64"', '"tcp"', '"udp"', '"source"', '"5-tuple"', '"reject"',
    '"drop"', '"reply"', '"backend"', '"v2"', '"cpu"', '"web"', "[]", "{}", "[[]]", '["eth0"]',
    "[0, 1]", "1979-05-27", "0x7f", "'''x'''",
)  # fmt: skip
KEYS = (
    "name", "vip", "port", "pool", "protocol", "affinity", "empty", "address", "weight", "echo",
    "source", "source_entropy", "outer_df", "flows", "tcp_idle_s", "tcp_closing_s", "udp_idle_s",
    "unconfirmed_s", "via", "expect", "status", "min_healthy", "body",
    "interval_ms", "table_size", "backends", "health", "cpus", "ring", "hash_key",
)  # fmt: skip

JUNK = "\n\"'=[]{}#0a\0\x7f\x1b\u202e\U0001f600"

Mutation = Callable[[random.Random, str], str]


def characters(rng: random.Random, text: str) -> str:
    at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    junk = "".join(rng.choice(JUNK) for _ in range(rng.randrange(4)))
    return text[:at] + junk + text[min(end, at + rng.randrange(4)) :]


def value(rng: random.Random, text: str) -> str:
    """Another value behind one of the equal signs."""
    places = list(re.finditer(r"= *([^\n,}]*)", text))
    if not places:
        return text
    place = rng.choice(places)
    return text[: place.start(1)] + rng.choice(VALUES) + text[place.end(1) :]


def key(rng: random.Random, text: str) -> str:
    places = list(re.finditer(r"\w+(?= *=)", text))
    if not places:
        return text
    place = rng.choice(places)
    return text[: place.start()] + rng.choice(KEYS) + text[place.end() :]


def lines(rng: random.Random, text: str) -> str:
    """A line goes, comes twice, or comes into force that was a comment."""
    rows = text.split("\n")
    at = rng.randrange(len(rows))
    kind = rng.randrange(4)
    if kind == 0:
        del rows[at]
    elif kind == 1:
        rows.insert(rng.randrange(len(rows) + 1), rows[at])
    elif kind == 2:
        rows[at] = rows[at].removeprefix("# ")
    else:
        rows.insert(at, f"{rng.choice(KEYS)} = {rng.choice(VALUES)}")
    return "\n".join(rows)


MUTATIONS: tuple[Mutation, ...] = (characters, value, value, key, lines, lines)


def is_prime(number: int) -> bool:
    return number > 1 and all(number % n for n in range(2, int(number**0.5) + 1))


def check_accepted(config: Config) -> None:
    """What the documents promise of a configuration that is accepted."""
    pools = {pool.name: pool for pool in config.pools}
    assert len(pools) == len(config.pools)
    places = {(s.vip, s.protocol, s.port) for s in config.services}
    assert len(places) == len(config.services) == len({s.name for s in config.services})
    assert all(service.pool in pools for service in config.services)
    for pool in config.pools:
        assert is_prime(pool.table_size)
        names, addresses = {b.name for b in pool.backends}, {b.address for b in pool.backends}
        assert len(names) == len(addresses) == len(pool.backends) > 0
        assert all(0 <= backend.weight <= 65535 for backend in pool.backends)
    flows = config.flows
    times = flows.tcp_idle_s, flows.tcp_closing_s, flows.udp_idle_s, flows.unconfirmed_s
    assert all(seconds in FLOW_S for seconds in times)
    vips = {service.vip for service in config.services}
    reached = {backend.address for pool in config.pools for backend in pool.backends}
    assert not vips & reached
    for prefix in map(ip_network, config.node.source_entropy):
        assert not any(a.version == prefix.version and a in prefix for a in vips | reached)
    shown = [str(problem) for problem in warnings(config, FILE, local=())]
    assert all(SECRET not in text for text in (*shown, repr(config), str(config)))


def check_refused(error: ConfigError) -> None:
    """A refusal names file and rule, on lines that a terminal can show, and no secret."""
    assert error.problems
    for problem in error.problems:
        assert problem.file == FILE
        assert problem.rule
        assert str(problem).isprintable()
        assert SECRET not in str(problem).lower()


def outcome(text: str) -> Config | ConfigError:
    try:
        return parse(text, FILE)
    except ConfigError as error:
        return error


@dataclass
class Fuzzer:
    """Texts, and what they brought to light."""

    rng: random.Random
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    seen: set[frozenset[str]] = field(default_factory=set)
    executions: int = 0
    accepted: int = 0

    def step(self) -> None:
        text = self.rng.choice(
            self.good if self.rng.random() < FROM_GOOD else self.bad or self.good
        )
        for _ in range(self.rng.randint(1, 3)):
            text = self.rng.choice(MUTATIONS)(self.rng, text)
        try:
            self.try_text(text)
        except Exception as error:
            error.add_note(f"the configuration that showed it:\n{text}")
            raise

    def try_text(self, text: str) -> None:
        result = outcome(text)
        self.executions += 1
        if isinstance(result, Config):
            self.accepted += 1
            check_accepted(result)
            assert outcome(text) == result
            rules = frozenset({f"accepted: {result.model_dump_json(exclude={'hash_key'})}"})
        else:
            check_refused(result)
            rules = frozenset(problem.rule for problem in result.problems)
        kept = self.good if isinstance(result, Config) else self.bad
        if rules not in self.seen and len(kept) < KEPT:
            self.seen.add(rules)
            kept.append(text)

    def summary(self) -> dict[str, int]:
        rules = {rule for rules in self.seen for rule in rules if not rule.startswith("accepted: ")}
        return {
            "executions": self.executions,
            "accepted": self.accepted,
            "kept": len(self.good) + len(self.bad),
            "rules": len(rules),
        }


def seeds() -> list[str]:
    """Good configurations, with a secret that is known here."""
    texts = [GOOD, EXAMPLE.read_text(encoding="utf-8")]
    secret = f'hash_key = "{SECRET}"'
    return [re.sub(r"^hash_key(_file)? = .*$", secret, text, flags=re.M) for text in texts]


def fuzz(seconds: float, seed: int) -> dict[str, int]:
    fuzzer = Fuzzer(random.Random(seed))
    for text in seeds():
        assert isinstance(outcome(text), Config), outcome(text)
        fuzzer.try_text(text)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fuzzer.step()
    return fuzzer.summary()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("seconds", type=float, nargs="?", default=20.0)
    arguments.add_argument("seed", type=int, nargs="?", default=1)
    chosen = arguments.parse_args()
    sys.stdout.write(json.dumps(fuzz(chosen.seconds, chosen.seed)) + "\n")
