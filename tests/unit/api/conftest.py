"""What tests of the admin socket share."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbfwd.api.server import admin_socket


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    """``ask(node, function, …)``: call it in a thread while the node's socket is served."""

    def run(node: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        async def whole() -> Any:
            async with admin_socket(node, tmp_path, ""):
                return await asyncio.to_thread(function, *arguments)

        return asyncio.run(whole())

    return run
