"""What all tests of the fleet need."""

import os
import shutil

import pytest

from bench.failover.daemons import FRR


@pytest.fixture(autouse=True)
def _possible() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    for tool in ("bird", "nginx"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.fixture
def frr() -> None:
    if not (FRR / "zebra").exists():
        pytest.skip("frr is not installed")
