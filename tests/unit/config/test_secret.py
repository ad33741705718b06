"""The hash_key never shows, whatever is wrong and wherever it was put."""

import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from lbfwd.config import ConfigError, HashKey, load, parse
from tests.unit.config.samples import FILE, GOOD, KEY, accepted, change, places

LINE = f'hash_key = "{KEY}"'
COLONS = ":".join(KEY[i : i + 2] for i in range(0, 32, 2))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root reads every file: be somebody else for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def assert_hidden(text: str) -> None:
    plain = text.lower().replace(":", "")
    assert not any(KEY[i : i + 8] in plain for i in range(len(KEY) - 8))


@pytest.mark.parametrize(
    "spoiled",
    [
        change(LINE, LINE + "\nx = 1"),
        change(LINE, f'hash_key = "{KEY}0"'),
        change(LINE, f'hash_key = "{KEY[:-1]}"'),
        change(LINE, f'hash_key = "{COLONS}"'),
        change(LINE, f'hash_key = ["{KEY}"]'),
        change(LINE, f'hash_key = {{ "{KEY}" = 1 }}'),
        change(LINE, f"hash_key = 0x{KEY}"),
        change(LINE, f"hash_key = {KEY}"),
        change(LINE, f"hash_key = 1{'0' * 5000}"),
        change(LINE, f'hash_key = "{KEY}'),
        change(LINE, f'hash_kye = "{COLONS}"'),
        change(LINE, f'key = "{COLONS}"'),
        change(LINE, f'"{KEY}" = "hash_key"'),
        change(LINE, f'hash_key_file = "{KEY}"'),
        change(LINE, f'hash_key_file = ["{KEY}"]'),
        change(LINE, f'{LINE}\nhash_key_file = "x"'),
        change("[node]", f"[node]\n{LINE}", change(LINE, "")),
        change("[node]", f'[node]\nhash_key = "{COLONS}"', change(LINE, "")),
        change("[node]", f"[[node]]\n{LINE}"),
        change('name = "lb1"', f'name = "{KEY}{KEY}{KEY}"'),
        change("[node]", f'[node]\n{KEY} = "{KEY}"'),
        change("port = 80", f'port = "{KEY}"'),
    ],
)
def test_no_error_shows_it(spoiled: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(spoiled, FILE)
    assert_hidden(str(caught.value))
    assert_hidden(repr(caught.value))
    assert_hidden("".join(traceback.format_exception(caught.value)))
    assert_hidden(json.dumps([asdict(problem) for problem in caught.value.problems]))


def test_no_configuration_shows_it() -> None:
    config = accepted(GOOD)
    for text in (repr(config), str(config), repr(config.model_dump()), config.model_dump_json()):
        assert_hidden(text)
        assert repr(bytes.fromhex(KEY))[2:-1] not in text
    assert (
        repr(config.hash_key) == str(config.hash_key) == f"{config.hash_key}" == "HashKey(hidden)"
    )


def test_its_length_is_told() -> None:
    assert places(change(LINE, f'hash_key = "{KEY[:-1]}"')) == [
        ("hash_key", "(hidden, 31 characters)")
    ]


def test_where_it_belongs_is_told() -> None:
    (missing, misplaced) = _problems(change("[node]", f"[node]\n{LINE}", change(LINE, "")))
    assert missing[0] == "hash_key"
    assert misplaced[0] == "node.hash_key"
    assert "top of the file, before the first [table]" in misplaced[2]


def _problems(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    return [(p.key, p.value, p.rule) for p in caught.value.problems]


def test_equal_keys_are_equal() -> None:
    assert HashKey(bytes(16)) == HashKey(bytes(16)) != HashKey(bytes(15) + b"1")
    with pytest.raises(ValueError, match="15 bytes"):
        HashKey(bytes(15))


# ---- hash_key_file


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "lb.toml"
    path.write_text(change(LINE, 'hash_key_file = "key"'))
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert_hidden(str(caught.value))
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("hash_key_file", '"key"')
    return problem.rule


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"  {KEY.upper()}\r\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_key_file_beside_the_configuration(config_file: Path, content: str, mode: int) -> None:
    key = config_file.with_name("key")
    key.write_text(content)
    key.chmod(mode)
    assert load(config_file).hash_key.raw == bytes.fromhex(KEY)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_key_file_that_others_can_touch(config_file: Path, mode: int) -> None:
    key = config_file.with_name("key")
    key.write_text(KEY)
    key.chmod(mode)
    assert f"mode {mode:04o}" in _refusal(config_file)


@pytest.mark.parametrize("content", ["", KEY[:-1], KEY + "0", f"{KEY}\n{KEY}", "x" * 100_000, "ä"])
def test_key_file_with_something_else(config_file: Path, content: str) -> None:
    key = config_file.with_name("key")
    key.write_text(content)
    key.chmod(0o600)
    assert "must hold 32 hex digits" in _refusal(config_file)


def test_key_file_missing(config_file: Path) -> None:
    assert "No such file" in _refusal(config_file)


def test_key_file_that_is_no_file(config_file: Path) -> None:
    os.mkfifo(config_file.with_name("key"), 0o600)
    assert "regular file" in _refusal(config_file)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_key_file_of_another_user(config_file: Path) -> None:
    key = config_file.with_name("key")
    key.write_text(KEY)
    key.chmod(0o600)
    os.chown(key, 12345, 12345)
    assert "not to user 12345" in _refusal(config_file)


def test_key_file_is_wrong_together_with_the_rest(config_file: Path) -> None:
    config_file.write_text(change("port = 80", "port = 0", config_file.read_text()))
    with pytest.raises(ConfigError) as caught:
        load(config_file)
    assert [p.key for p in caught.value.problems] == ["hash_key_file", 'service "web".port']


# ---- the configuration file itself


def _file_rule(path: Path) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.value) == (str(path), "")
    return problem.key, problem.rule


def test_file_missing_directory_fifo(tmp_path: Path) -> None:
    assert "No such file" in _file_rule(tmp_path / "absent")[1]
    assert "Is a directory" in _file_rule(tmp_path)[1]
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in _file_rule(tmp_path / "fifo")[1]
    assert "null character" in _file_rule(tmp_path / "a\0b")[1]


def test_file_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(GOOD)
    path.chmod(0)
    with unprivileged():
        assert "Permission denied" in _file_rule(path)[1]


def test_file_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_bytes(b"# fine\n# \xff\n")
    assert _file_rule(path) == ("line 2", "not UTF-8 text")


def test_file_with_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert load(path).node.name == "lb1"


def test_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    with path.open("wb") as file:
        file.truncate(33 * 1024 * 1024)
    assert _file_rule(path)[1] == "larger than 32 MiB"
