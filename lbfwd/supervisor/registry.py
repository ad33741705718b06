"""The backends that registered: who they are, whether they have proven themselves, their leases.

Times are seconds of the event loop's clock, but for ``since``: that of the epoch.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lbfwd.config import Config, IPAddress
from lbfwd.fleet import registration
from lbfwd.fleet.merge import Merged, alike, merge
from lbfwd.fleet.registration import Registration, RegistrationError, State
from lbfwd.health.judge import Operation
from lbfwd.health.standing import BackendKey, Said
from lbfwd.supervisor import operations

FILE = "registrations.json"
VERSION = 1

Source = Literal["etcd", "https"]


@dataclass(frozen=True)
class Entry:
    """A registration, and how long it holds. ``since``: when its state became so.

    ``lease_s``, ``until``: over HTTPS; etcd counts its leases itself. ``lost``: when its lease was
    lost, or it was taken back.
    """

    said: Registration
    source: Source
    since: float
    lease_s: float = math.inf
    until: float = math.inf
    lost: float | None = None


@dataclass(frozen=True)
class Saying:
    """What follows from a registration, as an operator's word would be."""

    mode: Said
    when: float
    who: str = "itself"


class Bad(NamedTuple):
    """Why something in etcd is no good registration; ``since``: what it says of its time."""

    reason: str
    since: float | None


@dataclass
class Registry:
    """Owns the entries, which are replaced as a whole: threads read them.

    ``refused``: why an entry is not in the configuration in force. ``bad``: what etcd holds and is
    no good registration: why, and its time where it has one.
    """

    entries: Mapping[BackendKey, Entry] = field(default_factory=dict)
    refused: Mapping[BackendKey, str] = field(default_factory=dict)
    bad: Mapping[BackendKey, Bad] = field(default_factory=dict)
    _proven: frozenset[BackendKey] = frozenset()

    def merge(self, config: Config, running: Config) -> Merged:
        """Return a configuration with the backends that registered and may.

        Pools that are as those of ``running`` are the same objects.
        """
        merged = merge(config, {key: entry.said for key, entry in self.entries.items()})
        return Merged(alike(merged.config, running), merged.refused)

    def put(self, key: BackendKey, entry: Entry) -> bool:
        """Take up an entry; returns whether more has changed than the end of its lease.

        Raises RegistrationError: another backend has this name.
        """
        before = self.entries.get(key)
        if before and before.said.address != entry.said.address:
            owner = before.said.address
            raise RegistrationError(f'name "{key[1]}": is that of another backend ({owner})')
        new = _dated(before, entry)
        self.entries = {**self.entries, key: new}
        return before is None or new != replace(before, until=new.until)

    def told(
        self,
        found: Mapping[BackendKey, Registration],
        bad: Mapping[BackendKey, Bad],
        now: float,
        epoch: float,
    ) -> bool:
        """Take up all that etcd holds; returns whether anything has changed."""
        before = self.entries
        moved = {k for k, s in found.items() if k in before and before[k].said.address != s.address}
        self._proven -= moved
        new = {k: _dated(before.get(k), Entry(said, "etcd", epoch)) for k, said in found.items()}
        gone = {
            key: replace(entry, lost=now, since=epoch)
            for key, entry in before.items()
            if entry.source == "etcd" and key not in found and entry.lost is None
        }
        changed = bad != self.bad or {**before, **new, **gone} != before
        self.entries, self.bad = {**before, **new, **gone}, bad
        return changed

    def lose(self, key: BackendKey, now: float, epoch: float) -> bool:
        """Note that a lease is lost; returns whether that is new."""
        entry = self.entries.get(key)
        if entry is None or entry.lost is not None:
            return False
        self.entries = {**self.entries, key: replace(entry, lost=now, since=epoch)}
        return True

    def extend(self, seconds: float) -> None:
        """Let all leases run longer: nobody has listened meanwhile."""
        self.entries = {k: replace(e, until=e.until + seconds) for k, e in self.entries.items()}

    def expire(self, config: Config, now: float, epoch: float) -> tuple[list[BackendKey], bool]:
        """Find leases that have run out, and drop who is gone for longer than its hold-down.

        Returns who was dropped, and whether anything has changed.
        """
        if not self.entries:
            return [], False
        here = self.entries.items()
        late = [key for key, entry in here if entry.lost is None and entry.until <= now]
        for key in late:
            self.lose(key, now, epoch)
        holds = {p.name: p.registration.hold_down_s for p in config.pools if p.registration}
        over = [
            key
            for key, entry in self.entries.items()
            if entry.lost is not None
            and (key in self.refused or now >= entry.lost + holds.get(key[0], 0))
        ]
        self.drop(*over)
        return over, bool(late or over)

    def drop(self, *keys: BackendKey) -> None:
        """Forget entries at once."""
        dropped = frozenset(keys)
        self._proven -= dropped
        self.entries = {key: e for key, e in self.entries.items() if key not in dropped}

    def said(
        self,
        operators: Mapping[BackendKey, Operation],
        passes: Callable[[BackendKey, IPAddress], bool],
    ) -> Mapping[BackendKey, Operation]:
        """Return what operators say of backends, and what follows from registrations.

        Who answers its probes for the first time has proven itself. ``passes``: does a backend, at
        an address? What its name did at another one proves nothing.
        """
        new = ((k, e.said.address) for k, e in self.entries.items() if k not in self._proven)
        self._proven |= {key for key, address in new if passes(key, address)}
        words: dict[BackendKey, Operation] = {}
        proving: dict[BackendKey, Operation] = {}
        for key, entry in self.entries.items():
            if key not in self._proven:
                proving[key] = Saying("joining", entry.since)
            elif entry.lost is not None:
                words[key] = Saying("gone", entry.since)
            elif entry.said.state == "paused":
                words[key] = Saying("paused", entry.since)
        return {**words, **operators, **proving}

    def state(self, key: BackendKey) -> State:
        """Return how it stands with an entry, or with what is refused."""
        entry = self.entries.get(key)
        if entry is None or key in self.refused:
            return "refused"
        if entry.lost is not None:
            return "gone"
        if key not in self._proven:
            return "joining"
        return entry.said.state


def _dated(before: Entry | None, entry: Entry) -> Entry:
    """Return the entry with the time at which its state became so."""
    if before and (before.lost, before.said.state) == (entry.lost, entry.said.state):
        return replace(entry, since=before.since)
    return entry


def dump(entries: Mapping[BackendKey, Entry]) -> str:
    """Return what is kept on disk: whoever is not gone."""
    rows = [
        {
            "pool": pool,
            "name": name,
            "source": entry.source,
            "lease_s": None if math.isinf(entry.lease_s) else entry.lease_s,
            **entry.said.model_dump(mode="json"),
        }
        for (pool, name), entry in sorted(entries.items())
        if entry.lost is None
    ]
    return json.dumps({"version": VERSION, "registrations": rows}, indent=1) + "\n"


def load(directory: Path, now: float, epoch: float) -> dict[BackendKey, Entry]:
    """Read what was kept; blocks. Each lease begins anew, for nobody could renew it meanwhile.

    Raises OSError or ValueError, which name the file.
    """
    file = directory / FILE
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise ValueError(f"not a file of version {VERSION}")
        return dict(_entry(row, now, epoch) for row in document["registrations"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RegistrationError) as error:
        raise ValueError(f"{file}: {error}") from None


def _entry(row: dict[str, Any], now: float, epoch: float) -> tuple[BackendKey, Entry]:
    said = registration.parse(json.dumps(row))
    lease_s = math.inf if row["lease_s"] is None else float(row["lease_s"])
    key = registration.named(row["pool"], row["name"])
    return key, Entry(said, row["source"], epoch, lease_s, now + lease_s)


def save(directory: Path, text: str) -> None:
    """Keep it; blocks. Raises OSError."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    operations.replace(directory / FILE, text)
