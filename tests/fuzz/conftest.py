"""How long fuzzing goes on: 20 seconds a target, 60 in CI."""

import os

import pytest


@pytest.fixture(scope="session")
def fuzz_seconds() -> int:
    return 60 if os.environ.get("CI") == "true" else 20
