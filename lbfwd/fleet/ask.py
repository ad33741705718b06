"""Asks all nodes of a fleet by their read-only listeners, at once. Blocks."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from lbfwd.api.client import NODE_TIMEOUT_S, ApiError, not_understood, request_tcp

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Answer(Generic[T]):
    """One node's: what it said (None: nothing that makes sense), and what is wrong with it."""

    node: str
    found: T | None
    problems: tuple[str, ...] = ()


def ask_all(
    nodes: Mapping[str, str], resource: str, model: type[T], timeout_s: float = NODE_TIMEOUT_S
) -> list[Answer[T]]:
    """Return each node's answer, in the order of ``nodes``: by name, where it listens."""

    def ask(item: tuple[str, str]) -> Answer[T]:
        name, api = item
        host, _, port = api.rpartition(":")
        try:
            body = request_tcp(host.strip("[]"), int(port), resource, timeout_s=timeout_s)
            return Answer(name, model.model_validate_json(body))
        except ApiError as error:
            return Answer(name, None, error.problems)
        except ValueError:
            return Answer(name, None, (not_understood(api),))

    with ThreadPoolExecutor(max(1, len(nodes))) as threads:  # MAX_NODES at most
        return list(threads.map(ask, nodes.items()))
