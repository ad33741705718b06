"""The part of a configuration that all nodes share, and that may come from etcd. Pure."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lbfwd.config.document import Document
from lbfwd.config.problem import ConfigError, Problem, hidden

SHARED_TABLES = ("pool", "service", "flows")
_SECRETS = ("hash_key", "hash_key_file")


@dataclass(frozen=True)
class Shared:
    """The shared part as TOML. ``name``: where it came from; ``revision``: etcd's number of it."""

    text: str
    name: str = field(compare=False)
    revision: int

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the text, BLAKE2b."""
        return hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()

    def __repr__(self) -> str:
        """Leave the text out: what somebody wrote into etcd may hold what it should not."""
        return f"Shared({self.name!r}, revision {self.revision})"


def wants_shared(local: Document) -> bool:
    """Tell whether a node's own file leaves the shared part to etcd."""
    etcd = local.get("etcd")
    return isinstance(etcd, dict) and bool(etcd.get("endpoints"))


def stands_alone(local: Document, shared: Document) -> bool:
    """Tell whether a node's own file has all kinds of things to forward that a shared part has."""
    kinds = {"pool", "service"} & shared.keys()
    return bool(kinds) and kinds <= local.keys()


def join(local: Document, shared: Document, file: str, name: str) -> Document:
    """Return both parts as one document; ``file`` and ``name`` are what problems call them.

    Raises ConfigError: a table stands in both, or in the wrong one.
    """
    if problems := list(_misplaced(local, shared, file, name)):
        raise ConfigError(problems)
    return local | shared


def _misplaced(local: Document, shared: Document, file: str, name: str) -> Iterator[Problem]:
    for key, value in shared.items():
        if key in _SECRETS:
            rule = f"secrets stay out of etcd: its place is each node's own file ({file})"
            yield Problem(name, key, hidden(value), rule)
        elif key not in SHARED_TABLES:
            known = ", ".join(SHARED_TABLES)
            rule = f"not shared: its place is each node's own file ({file}); shared are {known}"
            yield Problem(name, key, "", rule)
        elif key in local:
            rule = f"stands in {file}, too: take it out of one of them"
            yield Problem(name, key, "", rule)
