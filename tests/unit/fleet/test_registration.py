"""What backends say of themselves: read, written, proven."""

import hashlib
import hmac
import json
from ipaddress import ip_address

import pytest

from lbfwd.fleet.registration import (
    BACKENDS,
    Registration,
    RegistrationError,
    dump,
    is_token,
    key_of,
    named,
    parse,
    place,
    read,
)

KEY = ("web", "a")
TOKEN = "t" * 32
SAID = Registration(address=ip_address("10.0.0.11"), weight=3, since=1000.5)


def refusal(text: str) -> str:
    with pytest.raises(RegistrationError) as caught:
        parse(text)
    return str(caught.value)


def test_what_is_written_is_read() -> None:
    assert read(KEY, dump(KEY, SAID, TOKEN), [TOKEN]) == SAID
    assert read(KEY, dump(KEY, SAID, ""), []) == SAID


def test_the_proof_is_an_hmac_over_all_that_is_said() -> None:
    written = json.loads(dump(KEY, SAID, TOKEN))
    proof = written.pop("proof")
    message = json.dumps(["web", "a", written], sort_keys=True).encode()
    assert proof == hmac.new(TOKEN.encode(), message, hashlib.sha256).hexdigest()
    assert TOKEN not in dump(KEY, SAID, TOKEN)


@pytest.mark.parametrize(
    "change",
    [
        {"address": "10.0.0.12"}, {"weight": 4}, {"state": "paused"}, {"since": 999.0},
        {"proof": ""}, {"proof": None}, {"proof": 7}, {"proof": "é"},
    ],
)  # fmt: skip
def test_nothing_can_be_exchanged_without_the_token(change: dict[str, object]) -> None:
    written = json.loads(dump(KEY, SAID, TOKEN)) | change
    with pytest.raises(RegistrationError, match=r'pool "web": its token .* was not proven'):
        read(KEY, json.dumps(written), [TOKEN])


def test_a_proof_is_for_one_name_and_one_token() -> None:
    for key, token in ((("web", "b"), TOKEN), (("mail", "a"), TOKEN), (KEY, TOKEN.upper())):
        with pytest.raises(RegistrationError):
            read(key, dump(KEY, SAID, TOKEN), [token])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "registration: Invalid JSON"),
        ("[]", "registration: Input should be an object"),
        ('{"since": 1}', "address: Field required"),
        ('{"address": "10.0.0.1"}', "since: Field required"),
        ('{"address": "127.0.0.1", "since": 1}', "address: a loopback address"),
        ('{"address": "10.0.0.0/8", "since": 1}', "address: one address, without a prefix"),
        ('{"address": "10.0.0.1", "weight": 65536, "since": 1}', "weight: a whole number from 0"),
        ('{"address": "10.0.0.1", "since": NaN}', "since: Input should be a finite number"),
        ('{"address": "10.0.0.1", "since": Infinity}', "since: Input should be a finite number"),
        ('{"address": "10.0.0.1", "since": -1}', "since: Input should be greater than or equal"),
        ('{"address": "10.0.0.1", "state": "gone", "since": 1}', "state: Input should be 'active'"),
    ],
)
def test_what_is_no_registration_is_refused_by_its_rule(text: str, rule: str) -> None:
    assert refusal(text).startswith(rule)


@pytest.mark.parametrize("key", [("web", "a"), ("a/b", "[::1]:80/tcp"), ("..", "100%25"[:3])])
def test_a_place_holds_any_name(key: tuple[str, str]) -> None:
    assert place(BACKENDS, key).count("/") == 2
    if "%" not in key[1]:
        assert key_of(place(BACKENDS, key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "backends/web", "backends/web/a/b", "backends//a", "backends/a/",
        "backends/web/%61",  # or whoever is at backends/web/a could be there twice
        "backends/web/a%2fb",
    ],
)  # fmt: skip
def test_other_keys_are_nobodys(text: str) -> None:
    with pytest.raises(RegistrationError):
        key_of(text)


def test_names_are_checked() -> None:
    with pytest.raises(RegistrationError, match=r"name '-x': a name is 1 to 64"):
        named("web", "-x")


def test_a_token_is_right_or_wrong() -> None:
    assert is_token(TOKEN, [TOKEN])
    assert is_token(TOKEN, ["u" * 32, TOKEN])
    assert not is_token(TOKEN + "x", [TOKEN])
    assert not is_token("é", [TOKEN])
    assert not is_token("", [])
