"""The registry: leases, hold-downs, proofs, and what lies on disk."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbfwd.config import IPAddress
from lbfwd.fleet.registration import Registration, RegistrationError
from lbfwd.health.standing import BackendKey
from lbfwd.supervisor.operations import Operation
from lbfwd.supervisor.registry import Bad, Entry, Registry, dump, load, save
from tests.unit.fleet.test_merge import CONFIG

A, B = ("web", "a"), ("web", "b")
HERE = "10.0.0.12"
HOLD_S = 10  # of CONFIG: the default


def said(address: str = HERE, state: str = "active") -> Registration:
    return Registration(address=ip_address(address), since=1.0, state=state)  # type: ignore[arg-type]


def https(of: Registration, now: float = 0.0, lease_s: float = 10.0) -> Entry:
    return Entry(of, "https", now, lease_s, now + lease_s)


def modes(registry: Registry, **passing: str) -> dict[str, str]:
    """``passing``: at which address a backend was asked, and passes."""
    words = registry.said({}, lambda key, address: passing.get(key[1]) == str(address))
    return {key[1]: word.mode for key, word in words.items()}


def nobody(_key: BackendKey, _address: IPAddress) -> bool:
    return False


def test_a_sign_of_life_changes_nothing_but_the_lease() -> None:
    registry = Registry()
    assert registry.put(A, https(said()))
    assert not registry.put(A, https(said(), now=5.0))
    assert registry.entries[A].until == 15.0
    assert registry.put(A, https(said(state="paused"), now=6.0))
    assert registry.entries[A].since == 6.0


def test_a_name_is_not_given_to_another_address() -> None:
    registry = Registry()
    registry.put(A, https(said()))
    with pytest.raises(
        RegistrationError, match=r'name "a": is that of another backend \(10.0.0.12'
    ):
        registry.put(A, https(said("10.0.0.13")))
    registry.lose(A, 1.0, 1.0)
    with pytest.raises(RegistrationError):
        registry.put(A, https(said("10.0.0.13")))


def test_who_has_not_proven_itself_joins_whatever_operators_say() -> None:
    registry = Registry()
    registry.put(A, https(said()))
    assert modes(registry) == {"a": "joining"}
    operators = {A: Operation("drained", "anna", 1.0)}
    assert registry.said(operators, nobody)[A].mode == "joining"
    assert modes(registry, a=HERE) == {}
    assert modes(registry) == {}, "once is enough: from now on its checks decide"
    assert registry.said(operators, nobody)[A].mode == "drained"


def test_pausing_and_losing_the_lease_drain() -> None:
    registry = Registry()
    registry.put(A, https(said(state="paused")))
    assert modes(registry, a=HERE) == {"a": "paused"}
    assert registry.state(A) == "paused"
    registry.lose(A, 1.0, 1.0)
    assert modes(registry) == {"a": "gone"}
    assert registry.state(A) == "gone"


def test_a_lease_that_runs_out_holds_down_then_drops() -> None:
    registry = Registry()
    registry.put(A, https(said(), lease_s=3.0))
    assert registry.expire(CONFIG, 2.9, 0.0) == ([], False)
    assert registry.expire(CONFIG, 3.0, 0.0) == ([], True)
    assert registry.expire(CONFIG, 3.0 + HOLD_S - 0.1, 0.0) == ([], False)
    assert registry.expire(CONFIG, 3.0 + HOLD_S, 0.0) == ([A], True)
    assert registry.entries == {}


def test_who_is_back_within_the_hold_down_need_not_prove_itself_again() -> None:
    registry = Registry()
    registry.put(A, https(said(), lease_s=3.0))
    modes(registry, a=HERE)
    registry.expire(CONFIG, 3.0, 0.0)
    assert registry.put(A, https(said(), now=5.0))
    assert registry.state(A) == "active"
    registry.expire(CONFIG, 15.0, 0.0)
    registry.expire(CONFIG, 15.0 + HOLD_S, 0.0)
    registry.put(A, https(said(), now=30.0))
    assert registry.state(A) == "joining"


def test_leases_do_not_run_while_nobody_listens() -> None:
    registry = Registry()
    registry.put(A, https(said(), lease_s=3.0))
    registry.extend(60.0)
    assert registry.expire(CONFIG, 62.9, 0.0) == ([], False)


def test_etcd_tells_all_that_there_is() -> None:
    registry = Registry()
    assert registry.told({A: said(), B: said("10.0.0.13")}, {}, 0.0, 1.0)
    assert not registry.told({A: said(), B: said("10.0.0.13")}, {}, 1.0, 2.0)
    assert registry.told({A: said()}, {}, 2.0, 3.0)
    assert (registry.entries[B].lost, registry.entries[B].since) == (2.0, 3.0)
    assert registry.told({A: said()}, {B: Bad("no", None)}, 3.0, 4.0)
    assert registry.entries[B].lost == 2.0


def test_what_came_over_https_is_no_matter_of_etcds() -> None:
    registry = Registry()
    registry.put(A, https(said()))
    registry.told({}, {}, 1.0, 1.0)
    assert registry.entries[A].lost is None


def test_another_address_in_etcd_proves_itself_anew() -> None:
    registry = Registry()
    registry.told({A: said()}, {}, 0.0, 1.0)
    modes(registry, a=HERE)
    assert registry.state(A) == "active"
    registry.told({A: said("10.0.0.14")}, {}, 1.0, 2.0)
    assert modes(registry, a=HERE) == {"a": "joining"}, "the old address still passes"
    assert registry.state(A) == "joining"
    assert modes(registry, a="10.0.0.14") == {}
    assert registry.state(A) == "active"


def test_refused_ones_are_not_in_the_configuration_and_go_at_once() -> None:
    registry = Registry()
    registry.told({A: said("10.0.1.1")}, {}, 0.0, 1.0)
    merged = registry.merge(CONFIG, CONFIG)
    assert merged.config.pools == CONFIG.pools
    assert registry.refused == {}, "nothing is refused before that is taken up"
    registry.refused = merged.refused
    assert registry.state(A) == "refused"
    registry.told({}, {}, 1.0, 2.0)
    assert registry.expire(CONFIG, 1.0, 2.0) == ([A], True)


def test_the_disk_keeps_those_who_are_not_gone(tmp_path: Path) -> None:
    registry = Registry()
    registry.put(A, https(said(state="paused"), lease_s=20.0))
    registry.told({B: said("10.0.0.13")}, {}, 0.0, 1.0)
    registry.put(("web", "c"), https(said("10.0.0.15")))
    registry.lose(("web", "c"), 1.0, 1.0)
    save(tmp_path, dump(registry.entries))
    found = load(tmp_path, 100.0, 7.0)
    assert found == {
        A: replace(https(said(state="paused"), 100.0, 20.0), since=7.0),
        B: Entry(said("10.0.0.13"), "etcd", 7.0),
    }


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "registrations": [{}]}']
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "registrations.json").write_text(text)
    with pytest.raises(ValueError, match=r"registrations\.json: "):
        load(tmp_path, 0.0, 0.0)
    assert load(tmp_path / "none", 0.0, 0.0) == {}
