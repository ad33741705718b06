"""What a backend says of itself, how it proves that it may, and what nodes answer. Pure.

In etcd it is JSON under ``backends/POOL/NAME``; over HTTPS the same JSON, without a proof.
"""

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lbfwd.config.values import MAX_WEIGHT, Address, parse_name, whole
from lbfwd.health.standing import BackendKey

BACKENDS = "backends/"
VIEWS = "views/"
LEASE_S = range(2, 301)

State = Literal["joining", "active", "paused", "gone", "refused"]


class RegistrationError(Exception):
    """A registration was refused; the text names the rule and the value."""


class Registration(BaseModel):
    """One backend of one pool. ``since``: when it joined, seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    address: Address
    weight: Annotated[int, whole(0, MAX_WEIGHT)] = 1
    state: Literal["active", "paused"] = "active"
    since: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class View(BaseModel):
    """What a node makes of a registration: that of ``since``, if it could be read.

    ``state``: ``unknown`` where the backend has not heard of the node for a while; no node says it.
    ``flows``: live ones; None: not counted.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    node: str
    state: State | Literal["unknown"]
    reason: str = ""
    since: float | None = None
    flows: int | None = None


def place(prefix: str, key: BackendKey) -> str:
    """Return where a backend's own is: ``backends/web/a``. Names may hold slashes, places not."""
    return prefix + "/".join(quote(part, safe="") for part in key)


def key_of(place_: str) -> BackendKey:
    """Read a key below ``backends/``. Raises RegistrationError."""
    pool, slash, name = place_.removeprefix(BACKENDS).partition("/")
    if not slash or "/" in name:
        raise RegistrationError(f"{place_!r}: not backends/POOL/NAME")
    key = named(unquote(pool), unquote(name))
    if place(BACKENDS, key) != place_:  # or one backend could have several
        raise RegistrationError(f"{place_!r}: not {place(BACKENDS, key)!r}")
    return key


def named(pool: str, name: str) -> BackendKey:
    """Check both names. Raises RegistrationError."""
    for what, value in (("pool", pool), ("name", name)):
        try:
            parse_name(value)
        except ValueError as error:
            raise RegistrationError(f"{what} {value[:64]!r}: {error}") from None
    return pool, name


def parse(text: str | bytes) -> Registration:
    """Read what a backend says of itself. Raises RegistrationError."""
    try:
        return Registration.model_validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, found["loc"])) or "registration"
        raise RegistrationError(f"{at}: {found['msg'].removeprefix('Value error, ')}") from None


def dump(key: BackendKey, registration: Registration, token: str) -> str:
    """Return it for etcd; with a token it carries the proof that whoever wrote it knew it."""
    said = registration.model_dump(mode="json")
    return json.dumps(said | ({"proof": _proof(key, registration, token)} if token else {}))


def read(key: BackendKey, text: str, tokens: Sequence[str]) -> Registration:
    """Read one from etcd; where its pool has tokens it must prove one. Raises RegistrationError."""
    registration = parse(text)
    if tokens:
        proof = json.loads(text).get("proof")
        right = (_proof(key, registration, token) for token in tokens)
        if not isinstance(proof, str) or not any(_same(proof, one) for one in right):
            raise RegistrationError(f'pool "{key[0]}": its token (token_file) was not proven')
    return registration


def is_token(shown: str, tokens: Sequence[str]) -> bool:
    """Tell whether it is one of the tokens, in a time that says nothing of them."""
    return any(_same(shown, token) for token in tokens)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _proof(key: BackendKey, registration: Registration, token: str) -> str:
    """HMAC-SHA-256 under the token over all that is said, so that no part can be exchanged."""
    said = json.dumps([*key, registration.model_dump(mode="json")], sort_keys=True)
    return hmac.new(token.encode(), said.encode(), hashlib.sha256).hexdigest()
