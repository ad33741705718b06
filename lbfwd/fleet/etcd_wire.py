"""etcd's JSON gateway in plain values: keys and values are base64, 64-bit numbers are text. Pure.

https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/ and its rpc.proto.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Body = dict[str, Any]

# google.golang.org/grpc/codes
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
UNAVAILABLE = 14
UNAUTHENTICATED = 16


class EtcdError(Exception):
    """etcd did not do what it was asked; the text says which endpoint and why."""


class EtcdConflict(EtcdError):  # noqa: N818 - the name says what happened
    """Nothing was written: the key's revision is another one than it was to be."""


class EtcdLeaseLost(EtcdError):  # noqa: N818 - the name says what happened
    """The lease has run out or was revoked; the keys under it are gone."""


class EtcdUnreachable(EtcdError):  # noqa: N818 - the name says what happened
    """No endpoint answered as etcd does, so nothing is known of what was asked."""


class Behind(EtcdError):  # noqa: N818 - the name says what happened
    """What was to be watched cannot be told any more: compacted, or etcd was restored."""


class Answered(EtcdError):  # noqa: N818 - the name says what happened
    """etcd refused; ``code`` is gRPC's."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Value(NamedTuple):
    """What a key holds, and the revision at which it was written."""

    text: str
    revision: int


@dataclass(frozen=True)
class Change:
    """What revisions up to ``revision`` say of a prefix's keys. None: the key is gone.

    ``whole``: these are all keys that there are; what is not among them is gone.
    """

    revision: int
    values: Mapping[str, Value | None]
    whole: bool = False


def encoded(text: str) -> str:
    """Return a key or value as the gateway wants it."""
    return b64encode(text.encode()).decode()


def prefix_range(prefix: str) -> Body:
    """Return the range of all keys with a prefix: up to its last byte plus one."""
    raw = prefix.encode().rstrip(b"\xff")
    end = raw[:-1] + bytes([raw[-1] + 1]) if raw else b"\0"
    return {"key": b64encode(raw or b"\0").decode(), "range_end": b64encode(end).decode()}


def put_if(put: Body, revision: int) -> Body:
    """Return the transaction that puts only while the key is of a revision; 0: there is none."""
    compare = {
        "key": put["key"],
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": str(revision),
    }
    return {"compare": [compare], "success": [{"request_put": put}]}


def header(answer: Body) -> Body:
    """Return what each answer of etcd's has. Raises KeyError or the like where it has none."""
    found: Body = answer.get("result", answer)["header"]
    return found


def revision_of(answer: Body) -> int:
    """Return the revision of the whole store in an answer's header."""
    return int(header(answer)["revision"])


def revision_if_put(answer: Body) -> int | None:
    """Return the revision that a ``put_if`` made; None: its condition did not hold."""
    revision = revision_of(answer)
    return revision if answer.get("succeeded") else None


def number(name: str) -> Callable[[Body], int]:
    """Return what reads a number of an answer; the gateway leaves a 0 out."""

    def read(answer: Body) -> int:
        return int(answer.get(name, 0))

    return read


def lease_left_s(answer: Body) -> int:
    """Return how long a lease lasts that was kept alive; 0: it is gone."""
    return number("TTL")(answer["result"])


def token(answer: Body) -> str:
    """Return what a login gave."""
    return str(answer["token"])


def values(answer: Body, prefix: str) -> dict[str, Value]:
    """Read a range's keys, without their prefix."""
    return dict(_value(kv, prefix) for kv in answer.get("kvs", ()))


def _value(kv: Body, prefix: str) -> tuple[str, Value]:
    # What others wrote there may be no text: whoever reads it finds that out by its form.
    text = b64decode(kv.get("value", "")).decode(errors="replace")
    return _key(kv, prefix), Value(text, int(kv["mod_revision"]))


def _key(kv: Body, prefix: str) -> str:
    return b64decode(kv["key"]).decode(errors="replace").removeprefix(prefix)


def change(result: Body, prefix: str) -> Change | None:
    """Read a message of a watch; None: it tells of no change. Raises EtcdError when it ends it."""
    if int(result.get("compact_revision", 0)):
        raise Behind("compacted")
    if result.get("canceled"):
        raise EtcdError(f"the watch was ended: {result.get('cancel_reason') or 'no reason given'}")
    found: dict[str, Value | None] = {}
    events = result.get("events", ())
    for event in events:
        if event.get("type") == "DELETE":
            found[_key(event["kv"], prefix)] = None
        else:
            key, value = _value(event["kv"], prefix)
            found[key] = value
    # The header's revision may be that of events which have not been sent yet.
    last = max((int(event["kv"]["mod_revision"]) for event in events), default=0)
    return Change(last, found) if found else None


def stream_result(line: bytes) -> Body:
    """Read one message of a stream. Raises EtcdError or ValueError."""
    message = json.loads(line)
    if "error" in message:
        raise refusal(message["error"])
    result: Body = message["result"]
    return result


def refusal(error: object) -> Answered:
    """Read why etcd refused: an object in streams, and in answers."""
    if not isinstance(error, dict):
        return Answered(str(error), 0)
    text = error.get("message") or error.get("error") or "no reason given"
    return Answered(str(text), int(error.get("grpc_code") or error.get("code") or 0))


class Lines:
    """Cuts a stream into lines, each one message."""

    def __init__(self, longest: int) -> None:
        """``longest``: bytes that a line may have."""
        self._rest = b""
        self._longest = longest

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that are whole now. Raises ValueError: one is too long."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._longest:
            raise ValueError(f"a message of more than {self._longest} bytes")
        return (line for line in whole if line.strip())
