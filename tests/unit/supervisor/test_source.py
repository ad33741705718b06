"""A file that is written to while it is read is not taken for a configuration."""

import importlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbfwd.config import Config, ConfigError
from lbfwd.supervisor import source
from lbfwd.supervisor.source import Source
from tests.unit.supervisor.build import TEXT, config

load_module = importlib.import_module("lbfwd.config.load")  # the package has a function of its name


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine need not have the interfaces of the configuration."""
    monkeypatch.setattr(source, "this_machine", lambda: None)


@pytest.mark.usefixtures("anywhere")
def test_a_file_is_read_when_its_writer_has_been_quiet(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text(TEXT[: len(TEXT) // 2])

    def write_on() -> None:
        with file.open("a") as stream:
            for letter in TEXT[len(TEXT) // 2 :]:
                stream.write(letter)
                stream.flush()

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        assert Source(file, {}).read() == config()
    finally:
        writer.join()


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("last", ["more", "nothing"])
def test_a_file_is_read_while_its_writer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """What he writes after that counts all the same, and no half of a file does."""
    monkeypatch.setattr(source, "QUIET_S", 0.5)
    file, ages = tmp_path / "f.toml", list[float]()
    texts = [TEXT, TEXT.replace("weight = 2", "weight = 3")]

    def load(path: Path, *rest: Any) -> Config:
        ages.append(time.time() - path.stat().st_mtime)
        found = load_module.load(path, *rest)
        if last == "more" and len(ages) == 1:
            file.write_text(texts[1])
        return found

    monkeypatch.setattr(source, "load", load)
    file.write_text(texts[0])
    found = Source(file, {}).read()
    assert found == load_module.load(file)
    assert found.pools[0].backends[0].weight == {"more": 3, "nothing": 2}[last]
    assert source.TICK_S <= ages[0] < source.QUIET_S
    assert all(age >= source.QUIET_S for age in ages[1:])
    assert len(ages) == {"more": 2, "nothing": 1}[last]


@pytest.mark.usefixtures("anywhere")
def test_a_file_that_is_always_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PATIENCE_S", 0.2)
    file = tmp_path / "f.toml"
    file.write_text(TEXT)
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(0.001):
            os.utime(file)

    writer = threading.Thread(target=touch)
    writer.start()
    try:
        with pytest.raises(ConfigError, match=r"f\.toml: is being written to: try again"):
            Source(file, {}).read()
    finally:
        ended.set()
        writer.join()


@pytest.mark.usefixtures("anywhere")
def test_a_date_in_the_future_holds_nobody_up(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text(TEXT)
    os.utime(file, (time.time() + 3600, time.time() + 3600))
    assert Source(file, {}).read() == config()


@pytest.mark.parametrize("change", ["more", "less", "same size"])
def test_a_change_in_the_middle_of_reading_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = tmp_path / "f.toml"
    file.write_text(TEXT)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    opened: Callable[[Path], Any] = load_module.open_at_once

    def open_slowly(path: Path) -> Any:
        stream = opened(path)
        read = stream.read

        class Slow:
            def __enter__(self) -> "Slow":
                return self

            def __exit__(self, *_rest: object) -> None:
                stream.close()

            def fileno(self) -> int:
                return int(stream.fileno())

            def read(self, most: int) -> bytes:
                content: bytes = read(most)
                texts = {"more": TEXT + "#", "less": TEXT[:-1], "same size": TEXT}
                file.write_text(texts[change])
                return content

        return Slow()

    monkeypatch.setattr(load_module, "open_at_once", open_slowly)
    with pytest.raises(ConfigError, match="was written to while it was read"):
        load_module.load(file)
