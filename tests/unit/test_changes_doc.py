"""docs/changes.md says of every key whether a reload takes it up."""

import re
from pathlib import Path

from lbfwd.config import Config
from lbfwd.supervisor.plan import CPUS, NODE_KEYS

TEXT = (Path(__file__).parents[2] / "docs" / "changes.md").read_text()
SECTION = TEXT.split("### What can be reloaded")[1].split("###")[0]
ROWS = dict(re.findall(r"^\| (.*?) \| (.*?) \|$", SECTION, re.MULTILINE))


def named(row: str) -> set[str]:
    return {name.strip("[]") for name in re.findall(r"`(.*?)`", row)}


def test_the_keys_that_need_a_restart_are_those() -> None:
    (row,) = [keys for keys, how in ROWS.items() if how == "refused: restart lbfwd"]
    assert named(row) == {key.rstrip(".") for key in (*NODE_KEYS, CPUS)}


def test_every_table_is_named() -> None:
    told = {name.split(".")[0] for row in ROWS for name in named(row)}
    told |= {"pools", "services", "own_settings"}  # in words
    assert set(Config.model_fields) - told == set()
