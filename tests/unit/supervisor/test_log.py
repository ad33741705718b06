"""The log's two forms: its own process each, for the logger is made once."""

import json
import os
import pty
import subprocess
import sys

SCRIPT = """
from lbfwd.supervisor import log
log.configure()
def fail(hash_key):
    raise ValueError("no good")
log.get().warning("first_event", zebra=1, apple="x", mango=None)
try:
    fail("000102030405060708090a0b0c0d0e0f")
except ValueError:
    log.get().exception("second_event", pool="web")
"""
SECRET = "0001020304"


def on_a_terminal() -> str:
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stderr=theirs,
                               env=environment)  # fmt: skip
    os.close(theirs)
    process.communicate(SCRIPT.encode(), timeout=30)
    text = b""
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:  # EIO: the other side is closed, and everything was read
            break
    os.close(ours)
    return text.decode()


def to_a_file() -> list[str]:
    command = [sys.executable, "-"]
    done = subprocess.run(command, input=SCRIPT, capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_a_line_is_one_json_object_with_keys_in_the_order_they_were_given() -> None:
    lines = to_a_file()
    assert len(lines) == 2
    assert list(json.loads(lines[0])) == ["timestamp", "level", "event", "zebra", "apple", "mango"]
    second = json.loads(lines[1])
    assert list(second) == ["timestamp", "level", "event", "pool", "exception"]
    assert second["exception"][0]["exc_value"] == "no good"
    assert [frame["name"] for frame in second["exception"][0]["frames"]] == ["<module>", "fail"]


def test_a_traceback_tells_no_secret() -> None:
    assert SECRET not in "".join(to_a_file())
    shown = on_a_terminal()
    assert "no good" in shown
    assert "fail" in shown
    assert SECRET not in shown


def test_people_see_the_keys_in_the_same_order() -> None:
    line = on_a_terminal().splitlines()[0]
    assert "first_event" in line
    assert line.index("zebra") < line.index("apple") < line.index("mango")
