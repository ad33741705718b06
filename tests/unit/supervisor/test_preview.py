"""To which state a configuration leads, by what is known now."""

from dataclasses import replace
from ipaddress import ip_address

from lbfwd.config import Config
from lbfwd.health.standing import Standing
from lbfwd.net.resolve import Resolution
from lbfwd.supervisor.operations import Operation
from lbfwd.supervisor.preview import Known, expected
from lbfwd.supervisor.state import derive
from tests.unit.supervisor.build import config, hop, link, resolved

ETH1 = link("eth1", 3)
A, B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
KNOWN = Known(
    resolutions={A: resolved(hop("10.0.0.1", ETH1)), B: resolved(hop("10.0.0.2", ETH1))},
    tx={3: 0},
    verdicts={},
    operations={},
    standings={},
)
B_LINE = '  { name = "b", address = "10.0.0.2" },\n'
MORE = config((B_LINE, B_LINE + '{ name = "c", address = "10.0.0.3", weight = 4 },'))
CHECKED = ("backends = [", 'health = { type = "tcp", port = 80, via = "direct" }\nbackends = [')


def weights(of: Config, known: Known) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    forwarding, assumed = expected(of, known, 1000.0)
    return {m.name: m.effective_weight for m in forwarding.pools[0].members}, assumed


def test_what_is_known_is_taken_as_it_is() -> None:
    forwarding, assumed = expected(config(), KNOWN, 1000.0)
    assert forwarding == derive(config(), KNOWN.resolutions, KNOWN.tx).forwarding
    assert assumed == ()


def test_a_backend_that_nobody_knows_is_taken_to_be_reachable() -> None:
    assert weights(MORE, KNOWN) == ({"a": 2, "b": 1, "c": 4}, (("web", "c"),))


def test_a_backend_that_is_known_to_be_unreachable_is_not() -> None:
    lost = replace(KNOWN, resolutions={**KNOWN.resolutions, B: Resolution((), "no route")})
    assert weights(MORE, lost) == ({"a": 2, "b": 0, "c": 4}, (("web", "c"),))


def test_a_new_backend_that_an_operator_has_disabled_gets_nothing() -> None:
    said = {("web", "c"): Operation("disabled", "anna", 1.0)}
    assert weights(MORE, replace(KNOWN, operations=said)) == ({"a": 2, "b": 1, "c": 0}, ())


def test_new_checks_are_taken_to_pass() -> None:
    checked = config(CHECKED)
    assert weights(checked, KNOWN) == ({"a": 2, "b": 1}, (("web", "a"), ("web", "b")))


def test_a_slow_start_is_taken_to_be_over() -> None:
    slow = config(("backends = [", "slow_start_s = 60\nbackends = ["))
    starting = Standing("starting", 1, True, "slow start", 990.0)
    found, _ = weights(slow, replace(KNOWN, standings={("web", "a"): starting}))
    assert found["a"] == 2 * found["b"]
