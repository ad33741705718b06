"""Whatever the text, the flags and the bytes: a Config or a ConfigError, and nothing else."""

import contextlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbfwd.config import Config, ConfigError, load, parse
from tests.unit.config.samples import FILE, GOOD

KEYS = [
    "hash_key", "hash_key_file", "node", "workers", "pool", "service", "name", "interfaces",
    "source", "cpus", "ring", "rx_ring_mib", "rx_block_kib", "tx_ring_frames", "flows", "fanout",
    "table_size", "backends", "health", "type", "address", "weight", "vip", "protocol", "port",
    "affinity", "tcp_idle_s", "via", "expect", "status", "min_healthy", "body",
    "interval_ms", "echo", "source_entropy", "empty", "nonsense", "",
]  # fmt: skip
WORDS = [
    "web",
    "tcp",
    "v3",
    "none",
    "10.0.0.1",
    "192.0.2.1",
    "192.0.2.0/24",
    "::ffff:1.2.3.4",
    "fe80::1%x",
    "é\x7f",
]

scalars = (
    st.sampled_from(WORDS)
    | st.text(max_size=8)
    | st.integers()
    | st.sampled_from([0, 1, 7, 80, 128, 65536, 65537, 2**64, 10**400])
    | st.booleans()
    | st.floats()
    | st.datetimes()
)


def tables(values: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.sampled_from(KEYS), values, max_size=6)


values: st.SearchStrategy[object] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | tables(inner), max_leaves=15
)


def toml(value: object) -> str:
    """Write a value as inline TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower()


def try_parse(text: str, workers: Mapping[str, object] | None = None) -> None:
    result = outcome(text, workers)
    if isinstance(result, ConfigError):
        assert result.problems
        assert all(problem.rule and problem.file for problem in result.problems)
        assert control_free(str(result))


def outcome(text: str, workers: Mapping[str, object] | None) -> Config | ConfigError:
    try:
        return parse(text, FILE, workers)
    except ConfigError as error:
        return error


def control_free(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@given(st.text())
@settings(deadline=None)
def test_any_text(text: str) -> None:
    try_parse(text)


@given(tables(values))
@settings(max_examples=400, deadline=None)
def test_any_document(document: dict[str, object]) -> None:
    text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items())
    assert set(tomllib.loads(text)) == set(document)  # junk, but TOML
    try_parse(text)


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_good_document_with_one_value_replaced(data: st.DataObject) -> None:
    """Junk deep inside an otherwise good document reaches the rules between keys."""
    document = tomllib.loads(GOOD)
    place = data.draw(st.sampled_from(list(_places(document))))
    _put(document, place, data.draw(values))
    text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items())
    try_parse(text)


@given(st.dictionaries(st.sampled_from(KEYS), values | st.tuples(scalars), max_size=4))
@settings(deadline=None)
def test_any_flags(flags: dict[str, object]) -> None:
    try_parse(GOOD, flags)


@given(content=st.binary())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load(path)


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "\u202eabc"])
def test_a_terminal_is_never_sent_control_characters(name: str) -> None:
    text = GOOD.replace('"web"', toml(name)).replace("[node]", f"[node]\n{toml(name)} = 1")
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert control_free(str(caught.value))


def _places(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [at] * bool(at) + [p for step, v in inside for p in _places(v, (*at, step))]


def _put(document: dict[str, object], place: tuple[str | int, ...], value: object) -> None:
    at: object = document
    for step in place[:-1]:
        at = at[step]  # type: ignore[index]
    at[place[-1]] = value  # type: ignore[index]
