"""On Debian's own kernel: what this machine's may lack. docs/testing.md.

Each job is a run of pytest in the guest; what it prints is shown when it fails.
"""

from pathlib import Path

import pytest

from tests.vm.guest import Guest

JOB_S = 300.0
# The conftest of all tests brings libraries that take a quarter of a minute there.
PYTEST = (".venv/bin/python", "-m", "pytest", "-q", "-p", "tests.vm.plugin",
          "-p", "no:cacheprovider", "-o", "faulthandler_timeout=120", "--tb=short",
          "--durations=5")  # fmt: skip
JOBS = {
    "gre-and-ipvs": ["tests/vm/inside/test_gre.py"],
    "uplinks": ["tests/vm/inside/test_uplinks.py"],
    "pktgen": ["tests/vm/inside/test_pktgen.py"],
    "guard": ["tests/topology/net/test_guard.py", "-k", "stack or tagged or vlan or again"],
    "backend-undone": ["tests/topology/backend/test_undo.py", "-k", "15 or second_external"],
}


@pytest.fixture(scope="module")
def started(guest: Guest, request: pytest.FixtureRequest) -> dict[str, int]:
    """Every job that was asked for, so that two can run at a time."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    asked = [str(item.callspec.params["job"]) for item in items if item.module is request.module]
    return {name: guest.start(*pytest_of(name), timeout_s=JOB_S) for name in asked}


def pytest_of(job: str) -> list[str]:
    return [*PYTEST, f"--confcutdir={Path(JOBS[job][0]).parent}", *JOBS[job]]


@pytest.mark.parametrize("job", JOBS)
def test_in_the_guest(guest: Guest, started: dict[str, int], job: str) -> None:
    done = guest.wait(started[job], JOB_S * len(JOBS))
    print(done.output)  # noqa: T201 - pytest shows it with the failure
    assert done.code is not None, f"not done within {JOB_S:g} s"
    assert done.code == 0
