"""How long fuzzing goes on: 20 seconds a target, 60 in CI."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fuzz: random input for a while: 20 s, or 60 s with CI=true")


@pytest.fixture(scope="session")
def fuzz_seconds() -> int:
    return 60 if os.environ.get("CI") == "true" else 20
