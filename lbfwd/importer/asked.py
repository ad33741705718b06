"""What each kind of checker asks → the keys of ``[pool.health]`` that say so."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from lbfwd.config.health import QUERY_TYPES, parse_host, parse_path, parse_query, parse_status
from lbfwd.importer.note import Notes
from lbfwd.importer.scope import Scope, name_the_rest
from lbfwd.importer.tree import Statement

_LITERAL = re.compile(r"[A-Za-z0-9 _,:;=<>/-]{1,1024}", re.ASCII)  # a regex that is a plain text
_HEX_BYTES = 512
_URL_KEYS = {"path", "status_code", "virtualhost", "regex"}
Keys = dict[str, object]


@dataclass(frozen=True)
class Kind:
    """A kind of checker: the statements that it knows, and what they become."""

    keys: frozenset[str]
    convert: Callable[[Scope, Notes], Keys]


def _tcp(_scope: Scope, _notes: Notes) -> Keys:
    return {"type": "tcp"}


def _http(scope: Scope, notes: Notes) -> Keys:
    urls = [statement for statement in scope.block.inside if statement.name == "url"]
    for url in urls[1:]:
        notes.add(url.place, str(url), f"one URL is asked: that of line {urls[0].place.line}")
    inner = Scope(urls[0], scope) if urls else scope
    if urls:
        name_the_rest(urls[0], _URL_KEYS, notes)
    path = _checked(inner.find("path"), parse_path, notes) if urls else ""
    host = _checked(inner.find("virtualhost"), parse_host, notes)
    keys: Keys = {"type": "http", "path": path or "/", "host": host}
    status = _status(inner.find("status_code"), notes)
    body = _body(inner, notes)
    return {key: value for key, value in (keys | {"status": status, "body": body}).items() if value}


def _https(scope: Scope, notes: Notes) -> Keys:
    """Convert SSL_GET; keepalived asks for no certificate that it would trust."""
    return _http(scope, notes) | {"type": "https", "verify": False}


def _status(found: Statement | None, notes: Notes) -> list[str]:
    good: list[str] = []
    for text in found.words[1:] if found else ():
        try:
            status = parse_status(text)
        except ValueError as error:
            notes.add(found.place, f"status_code {text}", f"left out: {error}")  # type: ignore[union-attr]
        else:
            good += [status] if status not in good else []
    return good[:20]


def _body(url: Scope, notes: Notes) -> str:
    found = url.find("regex")
    if found is None or url.find("regex_no_match", "regex_options"):
        if found:
            notes.add(found.place, str(found), "no regular expressions: body looks for a text")
        return ""
    if not _LITERAL.fullmatch(found.value):
        notes.add(found.place, str(found), "no regular expressions: body looks for a text")
        return ""
    return found.value


def _dns(scope: Scope, notes: Notes) -> Keys:
    query = _checked(scope.find("name"), parse_query, notes) or "."
    kind = scope.value("type").upper() or "SOA"
    found = scope.find("type")
    if found and kind not in QUERY_TYPES:
        notes.add(found.place, str(found), f"SOA in its place; there are {', '.join(QUERY_TYPES)}")
        kind = "SOA"
    return {"type": "dns", "query": query, "query_type": kind}


def _udp(scope: Scope, notes: Notes) -> Keys:
    payload, reply = (_hex(scope.find(name), notes) for name in ("payload", "require_reply"))
    wanted = scope.find("require_reply")
    if wanted and not (payload and reply):
        why = "payload and reply must be given: a backend is up unless it says port unreachable"
        notes.add(wanted.place, str(wanted), why)
        reply = ""
    keys: Keys = {"type": "udp", "payload": payload, "expect": reply}
    return {key: value for key, value in keys.items() if value}


def _hex(found: Statement | None, notes: Notes) -> str:
    """Return ``hex:…`` for keepalived's free form: ``Ab12f 3`` is AB 12 0F 03; empty: nothing."""
    data = ""
    for group in found.words[1:] if found else ():
        pairs = [group[i : i + 2] for i in range(0, len(group), 2)]
        data += "".join(pair.rjust(2, "0") for pair in pairs)
    if found and not re.fullmatch(f"([0-9a-fA-F]{{2}}){{0,{_HEX_BYTES - 2}}}", data):
        why = f"hex digits without wildcards, {_HEX_BYTES - 2} bytes at most: left out"
        notes.add(found.place, str(found), why)
        return ""
    return f"hex:{data.lower()}" if data else ""


def _checked(found: Statement | None, parse: Callable[[object], str], notes: Notes) -> str:
    if found is None:
        return ""
    try:
        return parse(found.value)
    except ValueError as error:
        notes.add(found.place, str(found), f"left out: {error}")
        return ""


KINDS = {
    "HTTP_GET": Kind(frozenset({"url"}), _http),
    "SSL_GET": Kind(frozenset({"url", "enable_sni"}), _https),
    "DNS_CHECK": Kind(frozenset({"name", "type"}), _dns),
    "UDP_CHECK": Kind(frozenset({"payload", "require_reply"}), _udp),
    "TCP_CHECK": Kind(frozenset(), _tcp),
}
