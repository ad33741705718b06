"""``[pool.register]`` and ``[registration]``: what they need, and what they allow."""

from pathlib import Path

import pytest

from lbfwd.config.load import load
from lbfwd.config.problem import ConfigError
from tests.unit.config.samples import accepted, change, refused

ETCD = '[etcd]\nendpoints = ["http://10.0.0.5:2379"]\n'
HTTPS = '[registration]\nlisten = "10.0.0.1:9443"\ncertificate_file = "c"\nkey_file = "k"\n'
REGISTER = '[pool.register]\nallow = ["10.0.0.0/24"]\n'
BACKENDS = 'backends = [{ address = "10.0.0.11" }, { name = "b", address = "10.0.0.12" }]\n'


def text(register: str = REGISTER, way: str = ETCD, backends: str = BACKENDS) -> str:
    return change("[[pool]]", f"{way}[[pool]]", change(BACKENDS, backends + register))


def problem(of: str) -> tuple[str, str, str]:
    (found,) = refused(of)
    return found.key, found.value, found.rule


@pytest.mark.parametrize("backends", ["backends = []\n", "", BACKENDS])
def test_a_pool_that_backends_register_in_may_be_empty(backends: str) -> None:
    pool = accepted(text(backends=backends)).pools[0]
    assert pool.registration is not None
    assert [str(prefix) for prefix in pool.registration.allow] == ["10.0.0.0/24"]
    assert (pool.registration.token_file, pool.registration.hold_down_s) == ("", 10)
    assert len(pool.backends) == backends.count("address")


def test_others_may_not() -> None:
    rule = "unless backends register themselves ([pool.register])"
    empty = change(BACKENDS, "backends = []\n")
    assert problem(empty) == ('pool "web".backends', "[]", f"cannot be empty, {rule}")
    assert problem(change(BACKENDS, "")) == (
        'pool "web".backends', "(missing)", f"required, {rule}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "key", "rule"),
    [
        (ETCD, "", "", "nobody can register: that takes [registration] listen, or [etcd]"),
        (ETCD, HTTPS, ".token_file", "required with [registration] listen"),
        ('["10.0.0.0/24"]', "[]", ".allow", "cannot be empty"),
        ('["10.0.0.0/24"]', '["10.0.0.1"]', ".allow[0]", "a prefix in quotes"),
        ('["10.0.0.0/24"]', '["10.0.0.1/24"]', ".allow[0]", "not a prefix: 10.0.0.1/24 has host"),
        ('["10.0.0.0/24"]', '["10.0.0.0/24", "10.0.0.0/24"]', ".allow", "each one once"),
        (
            '["10.0.0.0/24"]',
            '["10.0.0.0/24"]\nhold_down_s = 3601',
            ".hold_down_s",
            "a whole number",
        ),
        ('["10.0.0.0/24"]', '["10.0.0.0/24"]\ntoken = "x"', ".token", "unknown key; did you mean"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, key: str, rule: str) -> None:
    at, _value, found = problem(change(old, new, text()))
    assert at == f'pool "web".register{key}'
    assert found.startswith(rule)


def test_somebody_must_use_the_pool() -> None:
    lonely = f'{text()}[[pool]]\nname = "x"\n{REGISTER}'
    at, _value, rule = problem(lonely)
    assert at == 'pool "x".register'
    assert rule.startswith("no service uses this pool")


@pytest.mark.parametrize(
    ("way", "key", "rule"),
    [
        (HTTPS.replace('certificate_file = "c"\n', ""), "certificate_file", "required with listen"),
        (HTTPS.replace('key_file = "k"\n', ""), "key_file", "required with listen"),
        ('[registration]\nkey_file = "k"\n', "key_file", "without listen it is not used"),
        (HTTPS.replace("10.0.0.1:9443", "lb1:9443"), "listen", "an address and a port"),
    ],
)
def test_the_listener_has_what_it_needs(way: str, key: str, rule: str) -> None:
    (found,) = refused(change("[[pool]]", f"{way}[[pool]]"))
    assert found.key == f"registration.{key}"
    assert found.rule.startswith(rule)


def test_no_number_of_backends_is_too_many_to_want_healthy() -> None:
    accepted(text("min_healthy = 5\n" + REGISTER))


def test_the_token_is_looked_at_when_the_file_is_read(tmp_path: Path) -> None:
    file, token = tmp_path / "lb.toml", tmp_path / "token"
    file.write_text(text(REGISTER + 'token_file = "token"\n'))

    def rule() -> str:
        with pytest.raises(ConfigError) as caught:
            load(file)
        (found,) = caught.value.problems
        assert (found.key, found.value) == ('pool "web".register.token_file', '"token"')
        return found.rule

    assert rule() == "cannot be read: No such file or directory"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o644)
    assert "chmod 0600" in rule()
    token.chmod(0o600)
    load(file)
    assert load(file).pools[0].registration
    token.write_text("0123456789abcdef\nfedcba9876543210\n")
    assert load(file).pools[0].registration
    token.write_text("0123456789abcdef\nshort\n")
    assert rule().startswith("the file must hold a token of 16 to 1024")
    token.write_text("short")
    assert rule().startswith("the file must hold a token of 16 to 1024 visible ASCII characters")
    token.write_text("two words of a token")
    assert rule().startswith("the file must hold a token")
