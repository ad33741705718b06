"""Checkers of real servers → one ``[pool.health]``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lbfwd.importer.asked import KINDS
from lbfwd.importer.note import Notes
from lbfwd.importer.reasons import CHECKS
from lbfwd.importer.scope import Scope, name_the_rest
from lbfwd.importer.timing import TIMING_KEYS, slower, timing
from lbfwd.importer.tree import Statement
from lbfwd.importer.virtual import RealServer

CHECKERS = (*KINDS, *CHECKS)
_SMTP_PORT = 25
_COMMON_KEYS = {"connect_port", "connect_ip", "virtualhost", *TIMING_KEYS}
Health = dict[str, object]


@dataclass(frozen=True)
class _Check:
    """What one checker asks, and whether lbfwd notices a failure later by it (empty: no)."""

    checker: Statement
    keys: Health
    slower: str


def health(servers: Sequence[RealServer], ports: set[int | None], notes: Notes) -> Health:
    """Return the check of a pool; empty: nothing is checked.

    ``ports`` are those of its services (None: every port).
    """
    by_server = [(server, _of_server(server, ports, notes)) for server in servers]
    found = [check for _, check in by_server if check]
    if not found:
        return {}
    counted = Counter(repr(check.keys) for check in found)
    chosen = max(found, key=lambda check: counted[repr(check.keys)])
    line = chosen.checker.place.line
    for server, check in by_server:
        if check is None:
            why = f"checked, too, as in line {line}: a pool has one check"
            notes.add(server.block.place, str(server.block), why)
        elif check.keys != chosen.keys:
            why = f"a pool has one check: that of line {line}"
            notes.add(check.checker.place, str(check.checker), why)
    if chosen.slower:
        notes.add(chosen.checker.place, str(chosen.checker), chosen.slower)
    return chosen.keys


def _of_server(server: RealServer, ports: set[int | None], notes: Notes) -> _Check | None:
    """Return the first check of a real server, one that has an equivalent where there is one."""
    chosen: _Check | None = None
    checkers = [statement for statement in server.block.inside if statement.name in CHECKERS]
    for checker in sorted(checkers, key=lambda checker: checker.name not in KINDS):
        if chosen:
            why = f"a pool has one check: that of line {chosen.checker.place.line}"
            notes.add(checker.place, str(checker), why)
        else:
            chosen = _converted(checker, server, ports, notes)
    return chosen


def _converted(
    checker: Statement, server: RealServer, ports: set[int | None], notes: Notes
) -> _Check | None:
    scope = Scope(checker, server.scope)
    way = _way(scope, server, ports, notes)
    if way is None:
        notes.add(checker.place, str(checker), "no port to check is known: left out")
        return None
    ip = scope.find("connect_ip")
    if ip and ip.value != server.address:
        notes.add(ip.place, str(ip), "each backend is asked itself")
    keys = _question(scope, notes) | way | timing(scope, notes)
    return _Check(checker, keys, slower(scope, keys))


def _question(scope: Scope, notes: Notes) -> Health:
    checker = scope.block
    if kind := KINDS.get(checker.name):
        name_the_rest(checker, _COMMON_KEYS | kind.keys, notes)
        return kind.convert(scope, notes)
    why = CHECKS[checker.name]
    if checker.name != "SMTP_CHECK":
        why += ": no equivalent; a TCP connection in its place"
    notes.add(checker.place, str(checker), why)
    return {"type": "tcp"}


def _way(scope: Scope, server: RealServer, ports: set[int | None], notes: Notes) -> Health | None:
    """Return port and way: through the tunnel where a service has that port. None: no port."""
    (common,) = ports if len(ports) == 1 else (None,)
    default = common or server.port
    if scope.block.name == "SMTP_CHECK":
        default = _SMTP_PORT
    port = scope.whole("connect_port", default, 0, 65535, notes) or default
    if not port:
        return None
    via = "tunnel" if port in ports or None in ports else "direct"
    return {"via": via} if port == common else {"port": port, "via": via}
