"""TOML -> Config, or every reason why not. ``parse`` is pure; ``load`` reads the files."""

import contextlib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import rtoml
from pydantic import ValidationError

from lbfwd.config.document import Document, mark_bad, tables
from lbfwd.config.fleet import EtcdSettings
from lbfwd.config.key import (
    RULE,
    HashKey,
    KeyFileError,
    open_at_once,
    parse_key,
    read_key_file,
    read_tokens,
)
from lbfwd.config.machine import Machine, lacking
from lbfwd.config.model import Config
from lbfwd.config.once import Memo, Reading
from lbfwd.config.problem import MISSING, ConfigError, Finding, Problem, hidden, hide, show
from lbfwd.config.rules import cross_check
from lbfwd.config.shared import Shared, join, stands_alone, wants_shared
from lbfwd.config.translate import Places, findings

MAX_FILE_BYTES = 32 * 1024 * 1024  # room for the most services and pools we hold, written out
_TOML_PLACE = re.compile(r"(.*) \(at (line \d+, column \d+|end of document)\)", re.DOTALL)
_PLACEHOLDER = HashKey(bytes(16))  # stands for a key that was refused; never leaves this module


def parse(
    text: str,
    file: str,
    workers: Mapping[str, object] | None = None,
    hash_key: bytes | None = None,
) -> Config:
    """Read a configuration from TOML text; reads no file and no machine state.

    ``file`` names it in problems. ``workers`` replaces keys of ``[workers]`` (flags of the command
    line, already of their type). ``hash_key`` is the 16 bytes that the hash_key_file holds.
    Raises ConfigError with all that is wrong.
    """
    key = None if hash_key is None else HashKey(hash_key)
    document = _document(text, file)
    _override(document, workers or {})
    return _config(document, Places(document, file, workers or {}), key)


def load(
    path: Path,
    workers: Mapping[str, object] | None = None,
    machine: Machine | None = None,
    shared: Shared | None = None,
    memo: Memo | None = None,
) -> Config:
    """Read a configuration file and its hash_key_file (relative to the file's directory).

    With ``machine`` (``this_machine()``) it is checked against that machine too. ``shared``: what
    etcd holds, for a file that leaves it to etcd. ``memo`` makes what was read before the same
    objects again. Raises ConfigError with all that is wrong; a file that cannot be read is a
    problem too.
    """
    return read(read_text(path), path, workers, machine, shared, memo)


def read(  # noqa: PLR0913, PLR0917 - a file, and what else there is to know
    text: str,
    path: Path,
    workers: Mapping[str, object] | None = None,
    machine: Machine | None = None,
    shared: Shared | None = None,
    memo: Memo | None = None,
) -> Config:
    """Read the text of a configuration file as ``load`` does; the file itself is not looked at."""
    file = str(path)
    document = _document(text, file)
    elsewhere: Mapping[str, str] = {}
    if shared is not None and wants_shared(document):
        other = _document(shared.text, shared.name)
        document = join(document, other, file, shared.name)
        elsewhere = dict.fromkeys(other, shared.name)
    _override(document, workers or {})
    key: HashKey | Finding | None = None
    key_file = document.get("hash_key_file")
    if isinstance(key_file, str) and "hash_key" not in document:
        try:
            key = read_key_file(path.parent / key_file)
        except KeyFileError as error:
            key = Finding(("hash_key_file",), show(key_file), str(error))
    places = Places(document, file, workers or {}, elsewhere)
    unreadable = tuple(_unreadable_tokens(document, path.parent))
    return _config(document, places, key, machine, memo, unreadable)


def read_etcd(path: Path) -> EtcdSettings:
    """Read what a configuration file says of etcd, and nothing else of it. Raises ConfigError."""
    text = read_text(path)
    try:
        return EtcdSettings.model_validate(_document(text, str(path)).get("etcd", {}))
    except ValidationError:
        return read(text, path).etcd  # raises all that is wrong, in an operator's words


def replaces(path: Path, shared: Shared) -> bool:
    """Tell whether a file has pools and services itself in the place of a shared part's.

    Raises ConfigError: one of them cannot be read.
    """
    local = _document(read_text(path), str(path))
    return stands_alone(local, _document(shared.text, shared.name))


def read_text(path: Path) -> str:
    """Read a file as a whole. Raises ConfigError: it cannot be, or was written to meanwhile."""
    file = str(path)
    try:
        with open_at_once(path) as stream:
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise _refused(file, "", "not a regular file")
            content = stream.read(MAX_FILE_BYTES + 1)
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise _refused(file, "", f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _refused(file, "", "a path cannot hold a null character") from None
    if len(content) > MAX_FILE_BYTES:
        raise _refused(file, "", f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, len(content)):
        raise _refused(file, "", "was written to while it was read: try again when it is whole")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(file, f"line {line}", "not UTF-8 text") from None


def _refused(file: str, key: str, rule: str) -> ConfigError:
    return ConfigError([Problem(file, key, "", rule)])


def _document(text: str, file: str) -> Document:
    with contextlib.suppress(ValueError):
        return rtoml.loads(text)
    try:  # many times slower, but it says in few words what is wrong, and quotes nothing
        return tomllib.loads(text)
    except RecursionError:
        raise _refused(file, "", "arrays or tables are nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError; and plain for an integer of 4300 digits
        match = _TOML_PLACE.fullmatch(str(error))
        rule, place = match.groups() if match else (str(error), "")
        raise _refused(file, place, f"not TOML: {hide(rule)}") from None


def _config(  # noqa: PLR0913, PLR0917 - all that decides whether it is good
    document: Document,
    places: Places,
    key: HashKey | Finding | None,
    machine: Machine | None = None,
    memo: Memo | None = None,
    unreadable: Sequence[Finding] = (),
) -> Config:
    key = _take_key(document, key)
    document["hash_key"] = _PLACEHOLDER if isinstance(key, Finding) else key
    reading = (memo or Memo()).reading()
    config, own = _validate(document, reading)
    for finding in own:
        mark_bad(document, finding.location)
    first = [key] if isinstance(key, Finding) else []
    settled = reading.settled({service.vip for service in config.services}) if config else ()
    found = [*first, *unreadable, *own, *cross_check(document, places.key, settled)]
    if machine:
        found += lacking(
            _array(document, "node", "interfaces"), _array(document, "workers", "cpus"), machine
        )
    if config is None or found:
        raise ConfigError(map(places.problem, found))
    if memo:
        memo.keep(reading)
    return config


def _unreadable_tokens(document: Document, directory: Path) -> Iterator[Finding]:
    for at, pool in tables(document, "pool"):
        register = pool.get("register")
        file = register.get("token_file") if isinstance(register, dict) else None
        if isinstance(file, str) and file:
            try:
                read_tokens(directory / file)
            except KeyFileError as error:
                yield Finding((*at, "register", "token_file"), show(file), str(error))


def _array(document: Document, table: str, key: str) -> list[object]:
    place = document.get(table)
    items = place.get(key) if isinstance(place, dict) else None
    return items if isinstance(items, list) else []


def _override(document: Document, workers: Mapping[str, object]) -> None:
    table = document.setdefault("workers", {}) if workers else None
    if isinstance(table, dict):  # anything else is a problem of the file's own
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in workers.items()}
        table.update(lists)


def _take_key(document: Document, given: HashKey | Finding | None) -> HashKey | Finding:
    """Take the secret out of the document, so that nothing that reports values ever meets it.

    ``given`` is the key of the hash_key_file, or why there is none.
    """
    inline, path = document.pop("hash_key", None), document.pop("hash_key_file", None)
    if inline is not None and path is not None:
        rule = "either hash_key or hash_key_file, not both"
        return Finding(("hash_key",), hidden(inline), rule)
    if path is not None and not isinstance(path, str):
        return Finding(("hash_key_file",), show(path), "a path in quotes")
    if inline is not None:
        try:
            return parse_key(inline)
        except ValueError as error:
            return Finding(("hash_key",), hidden(inline), str(error))
    rule = f"required: {RULE}, here or in a file that hash_key_file names"
    return given or Finding(("hash_key",), MISSING, rule)


def _validate(document: Document, reading: Reading) -> tuple[Config | None, list[Finding]]:
    try:
        config = Config.model_validate(document, by_alias=True, by_name=False, context=reading)
    except ValidationError as error:
        return None, findings(error)
    return config, []
