"""A push: what becomes of it on each node, and two at once over a real etcd."""

from pathlib import Path

import pytest

from lbfwd.cli.main import main
from lbfwd.config import parse
from lbfwd.config.shared import Shared
from lbfwd.fleet.ask import Answer
from lbfwd.fleet.etcd_wire import EtcdConflict, EtcdUnreachable
from lbfwd.fleet.push import Outcome, Push, became, grouped, why_late
from lbfwd.supervisor.changes import Forecast
from lbfwd.supervisor.status import SharedStatus
from tests.unit.config.test_shared import OWN
from tests.unit.fleet.etcd_server import etcd, free_port
from tests.unit.fleet.test_compare import answer

PUSHED, OTHER = Shared("pushed", "etcd", 7), Shared("other", "etcd", 6)


def shared(
    revision: int | None, seen: int | None, *problems: str, text: Shared | None = OTHER
) -> SharedStatus:
    return SharedStatus(
        key="/k",
        revision=revision,
        digest=text.digest if text else "",
        seen=seen,
        problems=problems,
        etcd_problem="away",
    )


RUNS = Outcome("a", "", 1, "d")


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (shared(7, 7, text=PUSHED), RUNS),
        (shared(7, 8, "the next one is bad", text=PUSHED), RUNS),
        (shared(5, 7, text=PUSHED), RUNS),  # it was there before
        (shared(5, 6, text=PUSHED), None),  # but another one may be between them
        (shared(8, 8), None),  # another push came after it
        (shared(8, 9, "the next but one is bad"), None),
        (shared(7, 7, text=None), RUNS),  # an older lbfwd tells no digest
        (shared(8, 8, text=None), None),
        (shared(6, 7, "bad"), Outcome("a", "bad")),
        (shared(5, 6, "the one before was bad"), None),
        (shared(6, 7), None),
        # Where etcd has lost its data it counts anew.
        (shared(18, None, "etcd has no key any more"), None),
        (shared(18, 18), None),
        (shared(18, 7), None),
        (shared(7, 7), None),
        (shared(None, None), None),
        (None, None),
    ],
)
def test_a_node_runs_it_or_refuses_it_or_is_waited_for(
    said: SharedStatus | None, outcome: Outcome | None
) -> None:
    assert became(answer("a", shared=said), PUSHED) == outcome


def test_a_node_that_only_starts_does_not_run_it_yet() -> None:
    found = answer("a", shared=shared(7, 7, text=PUSHED)).found
    assert found
    starting = Answer("a", found.model_copy(update={"ready": None}))
    assert became(starting, PUSHED) is None
    assert why_late(starting, 3.0) == "it does not forward yet after 3 s"


def test_a_node_that_runs_another_one_is_named_so() -> None:
    assert why_late(answer("a", shared=shared(8, 8)), 3.0) == (
        "at revision 8, not this one, after 3 s; etcd: away"
    )


def test_who_does_not_answer_is_waited_for() -> None:
    assert became(Answer("a", None, ("no route",)), PUSHED) is None


def test_nodes_with_one_plan_are_shown_together() -> None:
    def plan(moved: float) -> Forecast:
        return Forecast(
            file="f",
            changes=(),
            workers=(),
            restart=(),
            services=(),
            moved=moved,
            breaking=0,
            assumed=(),
        )

    plans = [
        Answer("a", plan(0.5)),
        Answer("b", plan(0.25)),
        Answer("c", plan(0.5)),
        Answer("d", None, ("refused",)),
    ]
    assert grouped(plans, lambda forecast: iter((str(forecast.moved),))) == {
        ("0.5",): ["a", "c"],
        ("0.25",): ["b"],
    }


def push(endpoint: str, text: str) -> Push:
    nobody = f'{{ name = "lb1", api = "127.0.0.1:{free_port()}" }}'
    both = f'{OWN}[fleet]\nnodes = [{nobody}]\n[etcd]\nendpoints = ["{endpoint}"]\n'
    return Push(parse(both, "f"), Path(), text)


def test_of_two_pushes_at_once_the_second_is_refused(tmp_path: Path) -> None:
    with etcd(tmp_path) as server:
        first, second = (push(server.endpoint, f"# {name}") for name in ("first", "second"))
        looked, also = first.look(), second.look()
        assert looked.revision == also.revision == 0
        (plan,) = looked.plans
        assert plan.problems[0].endswith("Connection refused")
        revision = first.write(looked.revision)
        with pytest.raises(EtcdConflict, match=r"another push came first.*nothing was written"):
            second.write(also.revision)
        again = second.look()
        assert (again.revision, again.text) == (revision, "# first")
        assert first.look().plans == (), "etcd holds it already"
        keys = server.ask("/v3/kv/range", {"key": "AA==", "range_end": "AA==", "count_only": True})
        assert isinstance(keys, dict)
        assert keys["count"] == "1", "candidates are gone"
        (outcome,) = second.wait(revision, 0.0)
        assert "Connection refused" in outcome.problem


def test_a_write_without_an_answer_says_what_to_do() -> None:
    with pytest.raises(EtcdUnreachable, match=r"it may have been written or not; push it again"):
        push(f"http://127.0.0.1:{free_port()}", "").write(0)


ETCD = '[etcd]\nendpoints = ["http://127.0.0.1:1"]\n'
FLEET = '[fleet]\nnodes = [{ name = "lb1", api = "127.0.0.1:2" }]\n'


@pytest.mark.parametrize(
    ("own", "shared_part", "options", "code", "reason"),
    [
        (OWN + ETCD + FLEET, "", ["--json"], 2, "--json asks nobody: it needs --yes or --dry-run"),
        (OWN + FLEET, "", [], 1, "{own}: etcd.endpoints = []: a push needs at least one"),
        (OWN + ETCD, "", [], 1, "{own}: fleet.nodes = []: a push needs at least one"),
        (OWN + ETCD + FLEET, "[flow]", [], 1, "{shared}: flow: not shared: its place is"),
        (OWN + ETCD + FLEET, "", ["--yes"], 1, "lbfwd push: http://127.0.0.1:1: Connect call fail"),
    ],
)
def test_what_cannot_be_pushed_is_named(  # noqa: PLR0917
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    own: str,
    shared_part: str,
    options: list[str],
    code: int,
    reason: str,
) -> None:
    files = {"own": tmp_path / "lbfwd.toml", "shared": tmp_path / "shared.toml"}
    files["own"].write_text(own)
    files["shared"].write_text(shared_part)
    assert main(["push", str(files["shared"]), "-c", str(files["own"]), *options]) == code
    assert reason.format(**files) in capsys.readouterr().err
