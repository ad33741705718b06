"""What operators said of backends apart from the configuration: drained or disabled, by whom, when.

Kept in the state directory, so that it survives a restart of the supervisor: a JSON file that is
replaced as a whole. A backend that leaves the configuration keeps its entry until it is ended.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from lbfwd.config import Config, Pool
from lbfwd.health.standing import BackendKey
from lbfwd.supervisor.errors import Refused, SupervisorError, describe

FILE = "operations.json"
VERSION = 1

Mode = Literal["drained", "disabled"]
ENDED_BY: Mapping[Mode, str] = {"drained": "undrain", "disabled": "enable"}


@dataclass(frozen=True)
class Operation:
    """``drained``: no new flows, live ones stay. ``disabled``: no flows at all.

    ``who``: the user who asked; ``when``: seconds since the epoch.
    """

    mode: Mode
    who: str
    when: float


class Operations:
    """Owns the file. What is in force changes only after it was written."""

    def __init__(self, directory: Path) -> None:
        """Use ``load``."""
        self._file = directory / FILE
        self._operations: dict[BackendKey, Operation] = {}
        self.problem = ""
        """Why the saved state could not be read; empty: it was."""

    @classmethod
    def load(cls, directory: Path) -> "Operations":
        """Read what was saved; blocks. A file that makes no sense is set aside: see ``problem``."""
        self = cls(directory)
        try:
            self._operations = parse(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self.problem = f"{self._file}: {describe(error)}"
            self._set_aside()
        return self

    def get(self) -> Mapping[BackendKey, Operation]:
        """Return what is in force, by pool and backend."""
        return dict(self._operations)

    def set(self, key: BackendKey, operation: Operation) -> None:
        """Save, then put in force; blocks. Raises SupervisorError, and then nothing has changed."""
        self._save(self._operations | {key: operation})

    def end(self, key: BackendKey, mode: Mode) -> None:
        """Take back what ``set`` put in force; blocks. Raises Refused or SupervisorError."""
        now = self._operations.get(key)
        name = "/".join(key)
        if now is None:
            raise Refused(f"backend {name} is not {mode}: nothing to end")
        if now.mode != mode:
            raise Refused(f"backend {name} is {now.mode}, not {mode}: lbfwd {ENDED_BY[now.mode]}")
        self._save({other: op for other, op in self._operations.items() if other != key})

    def _save(self, operations: dict[BackendKey, Operation]) -> None:
        try:
            self._file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace(self._file, dump(operations))
        except OSError as error:
            reason = error.strerror or error
            raise SupervisorError(
                f"state directory {self._file.parent}: {reason}; nothing was changed"
            ) from error
        self._operations = operations

    def _set_aside(self) -> None:
        try:
            self._file.replace(self._file.with_suffix(".bad"))
        except OSError as error:
            self.problem += f"; cannot be set aside: {describe(error)}"


def dump(operations: Mapping[BackendKey, Operation]) -> str:
    """Return the file's text."""
    rows = [
        {"pool": pool, "backend": backend, "mode": op.mode, "who": op.who, "when": op.when}
        for (pool, backend), op in sorted(operations.items())
    ]
    return json.dumps({"version": VERSION, "backends": rows}, indent=1) + "\n"


def parse(text: str) -> dict[BackendKey, Operation]:
    """Read the file's text. Raises ValueError naming what is wrong."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"not a file of version {VERSION}")
    try:
        return dict(map(_entry, document["backends"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an entry makes no sense: {error!r}") from None


def _entry(row: Mapping[str, Any]) -> tuple[BackendKey, Operation]:
    if row["mode"] not in ENDED_BY:
        raise ValueError(f"mode {row['mode']!r}: {' or '.join(ENDED_BY)}")
    return (str(row["pool"]), str(row["backend"])), Operation(
        row["mode"], str(row["who"]), float(row["when"])
    )


def replace(file: Path, text: str) -> None:
    """Write a file aside and put it in place at once. Raises OSError; the old one then stays."""
    aside = file.with_suffix(".new")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def find_backend(
    config: Config, name: str, pool: str | None, known: Mapping[BackendKey, Operation]
) -> BackendKey:
    """Return which backend is meant by its name, or by its address where no name fits.

    ``known``: backends with an operation, which may have left the configuration. Raises Refused,
    which lists the candidates.
    """
    here = [p for p in config.pools if pool in (None, p.name)]
    if pool is not None and not here and not any(p == pool for p, _ in known):
        pools = ", ".join(p.name for p in config.pools) or "there is none"
        raise Refused(f"no pool {pool!r}: {pools}")
    gone = [(p, n) for p, n in known if n == name and pool in (None, p)]
    named = [(p.name, b.name) for p in here for b in p.backends if b.name == name]
    found = list(dict.fromkeys(named + gone)) or _at_address(here, name)
    if len(found) == 1:
        return found[0]
    if found:
        pools = ", ".join(p for p, _ in found)
        raise Refused(f"backend {name!r} is in several pools: {pools}; say --pool POOL")
    raise Refused(f"no backend {name!r}{f' in pool {pool!r}' if pool else ''}: {_candidates(here)}")


def _at_address(pools: Sequence[Pool], text: str) -> list[BackendKey]:
    try:
        address = ip_address(text)
    except ValueError:
        return []
    return [(p.name, b.name) for p in pools for b in p.backends if b.address == address]


def _candidates(pools: Sequence[Pool], most: int = 20) -> str:
    names = list(dict.fromkeys(b.name for p in pools for b in p.backends))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) if names else "there is none"
