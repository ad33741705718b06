"""A small good configuration, and ways to spoil it."""

import pytest

from lbfwd.config import Config, ConfigError, Problem, parse

FILE = "lb.toml"
KEY = "00112233445566778899aabbccddeeff"

GOOD = f"""
hash_key = "{KEY}"
[node]
name = "lb1"
interfaces = ["eth0"]
[workers]
cpus = [0]
[[pool]]
name = "web"
backends = [{{ address = "10.0.0.11" }}, {{ name = "b", address = "10.0.0.12" }}]
[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
port = 80
pool = "web"
"""


def change(old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) == 1, f"{old!r} must stand in the sample once"
    return text.replace(old, new)


def accepted(text: str, **options: object) -> Config:
    return parse(text, FILE, **options)  # type: ignore[arg-type]


def refused(text: str, **options: object) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE, **options)  # type: ignore[arg-type]
    assert caught.value.problems
    return list(caught.value.problems)


def places(text: str, **options: object) -> list[tuple[str, str]]:
    """Return (key, value) of each problem."""
    return [(problem.key, problem.value) for problem in refused(text, **options)]
