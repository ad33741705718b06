"""The pytest plugin of the guest: longer waits, and no test may be skipped."""

from collections.abc import Callable, Generator
from typing import TypeVar

import pytest

from lbfwd.demo import lab

T = TypeVar("T")

FACTOR = 6.0  # an emulated processor is slow

_eventually = lab.eventually


def patiently(fact: Callable[[], T], timeout_s: float, what: str) -> T:
    return _eventually(fact, FACTOR * timeout_s, what)


# Plugins are loaded first: whoever imports it later, imports this one.
lab.eventually = patiently


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Nothing is lacking in the guest: a test that thinks so has failed."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
    return report
