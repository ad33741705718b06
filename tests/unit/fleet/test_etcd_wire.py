"""What etcd's gateway says, by examples of its documentation and of etcd 3.4 itself."""

import pytest

from lbfwd.fleet import etcd_wire as wire
from lbfwd.fleet.etcd_wire import Behind, Change, EtcdError, Lines, Value


def test_keys_are_base64() -> None:
    # https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/: "foo is 'Zm9v' in Base64"
    assert wire.encoded("foo") == "Zm9v"


@pytest.mark.parametrize(
    ("prefix", "begin", "end"),
    [("foo", "Zm9v", "Zm9w"), ("", "AA==", "AA=="), ("/lbfwd/", "L2xiZndkLw==", "L2xiZndkMA==")],
)
def test_a_prefix_is_a_range_up_to_the_next_one(prefix: str, begin: str, end: str) -> None:
    assert wire.prefix_range(prefix) == {"key": begin, "range_end": end}


def test_a_watch_tells_only_of_what_it_was_asked() -> None:
    created = {"header": {"revision": "7"}, "created": True}
    progress = {"header": {"revision": "8"}}
    assert wire.change(created, "f") is None
    assert wire.change(progress, "f") is None


def test_a_batch_counts_to_its_last_event_and_not_to_the_header() -> None:
    put = {"kv": {"key": "Zm9v", "value": "YmFy", "mod_revision": "5", "version": "1"}}
    gone = {"type": "DELETE", "kv": {"key": "Zm9w", "mod_revision": "6"}}
    result = {"header": {"revision": "2000"}, "events": [put, gone]}
    assert wire.change(result, "f") == Change(6, {"oo": Value("bar", 5), "op": None})


def test_an_ended_watch_says_why() -> None:
    with pytest.raises(Behind):
        wire.change({"header": {}, "canceled": True, "compact_revision": "9"}, "")
    with pytest.raises(EtcdError, match="permission denied"):
        wire.change({"canceled": True, "cancel_reason": "permission denied"}, "")


def test_errors_of_streams_and_of_answers_are_read() -> None:
    with pytest.raises(EtcdError, match="no leader"):
        wire.stream_result(b'{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}')
    said = wire.refusal({"error": "etcdserver: too large", "code": 3})
    assert (str(said), said.code) == ("etcdserver: too large", 3)
    said = wire.refusal({"code": 3, "message": "etcdserver: too large", "details": []})
    assert (str(said), said.code) == ("etcdserver: too large", 3)


def test_lines_come_whole_however_they_were_cut() -> None:
    lines = Lines(longest=4)
    assert [list(lines.feed(part)) for part in (b"a", b"b\n\nc", b"\nde")] == [[], [b"ab"], [b"c"]]
    with pytest.raises(ValueError, match="more than 4 bytes"):
        lines.feed(b"fgh")
