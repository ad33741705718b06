"""What the tests in the guest share. A new Python takes seconds there: few are started."""

import json
from collections.abc import Iterator

import pytest

from lbfwd.api.client import request
from lbfwd.supervisor.runtime import ADMIN_SOCKET
from tests.topology.node.stage import Node


def status(node: Node) -> object:
    """Ask for the status from this process."""
    return json.loads(request(node.runtime / ADMIN_SOCKET, "GET", "/v1/status"))


@pytest.fixture(autouse=True, scope="session")
def asked_from_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Node, "status", status)
        yield
