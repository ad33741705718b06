"""Fixtures that several rooms of tests use."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.packet.bench")  # its assertions explain themselves

from lbfwd.forwarding import Forwarding  # noqa: E402
from tests.packet.bench import Bench, BenchMaker  # noqa: E402

# Random, but the same every time: a red run can be repeated. No deadline: machines differ.
settings.register_profile("lbfwd", derandomize=True, deadline=None)
settings.load_profile("lbfwd")


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[BenchMaker]:
    """Make nodes in memory: ``make_bench(forwarding, tx_slots=…)``."""
    with ExitStack() as stack:

        def make(state: Forwarding, **options: int) -> Bench:
            directory = tmp_path / f"node{len(list(tmp_path.iterdir()))}"
            directory.mkdir()
            bench = Bench(directory, state, **options)
            stack.callback(bench.close)
            return bench

        yield make
