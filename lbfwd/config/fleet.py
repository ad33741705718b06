"""The tables about several nodes: who they are, and the etcd that they share."""

import re
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainValidator

from lbfwd.config.values import (
    Address,
    IPNetwork,
    Name,
    Table,
    array,
    each_once,
    one_a_family,
    parse_listen,
    whole,
)

MAX_NODES = 256
_PREFIX = re.compile(r"/([\x21-\x7e]{0,126}/)?")


def parse_api(value: object) -> str:
    """Check where a node's read-only listener is. Raises ValueError."""
    if value == "":
        raise ValueError("a node of the fleet is asked there: an address and a port")
    return parse_listen(value)


def parse_endpoint(value: object) -> str:
    """Check an endpoint of etcd: scheme, host, port. Raises ValueError."""
    rule = 'a URL such as "https://10.0.0.5:2379", with a port and nothing behind it'
    if not isinstance(value, str):
        raise ValueError(rule)
    try:
        url = urlsplit(value)
        whole = url.scheme in ("http", "https") and url.hostname and url.port
    except ValueError:
        raise ValueError(rule) from None
    if not whole or url.path not in ("", "/") or url.query or url.fragment or url.username:
        raise ValueError(rule)
    return value.rstrip("/")


def parse_key_prefix(value: object) -> str:
    """Check the prefix of our keys in etcd. Raises ValueError."""
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise ValueError("printable ASCII without spaces that begins and ends with /, up to 128")
    return value


def parse_text(value: object) -> str:
    """Check a path, or the name of a user; empty: none. Raises ValueError."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError('a text in quotes; "" for none')
    return value


def parse_allowed(value: object) -> IPNetwork:
    """Check a prefix that backends may register from, a single address included.

    Raises ValueError.
    """
    if not isinstance(value, str) or "/" not in value:
        raise ValueError('a prefix in quotes, such as "10.0.0.0/24"')
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"not a prefix: {error}") from None


Text = Annotated[str, PlainValidator(parse_text)]


class FleetNode(Table):
    """A node: its addresses in the data plane, and its ``[metrics] listen``."""

    name: Name
    addresses: Annotated[tuple[Address, ...], array(), one_a_family("address")] = ()
    api: Annotated[str, PlainValidator(parse_api)]


class Fleet(Table):
    """All nodes behind the same routers, this one among them.

    ``fragments``: who forwards fragments of a flow that routers may have sent elsewhere.
    """

    nodes: Annotated[tuple[FleetNode, ...], array(0, MAX_NODES)] = ()
    fragments: Literal["local", "peer"] = "local"


class Register(Table):
    """``[pool.register]``: backends may join this pool by themselves; docs/registration.md.

    ``allow``: where their addresses must lie. ``token_file``: holds the secret that they show; its
    path is relative to the configuration's directory. ``hold_down_s``: one whose lease is lost gets
    no new flows, and is out after so long.
    """

    allow: Annotated[
        tuple[Annotated[IPNetwork, PlainValidator(parse_allowed)], ...],
        array(1, 64),
        AfterValidator(each_once),
    ]
    token_file: Text = ""
    hold_down_s: Annotated[int, whole(0, 3600)] = 10


class Registration(Table):
    """``[registration]``: where backends register over HTTPS; empty: nowhere."""

    listen: Annotated[str, PlainValidator(parse_listen)] = ""
    certificate_file: Text = ""
    key_file: Text = ""


class EtcdSettings(Table):
    """Where the shared part of the configuration comes from; no endpoint: from the file.

    Paths are relative to the configuration's directory.
    """

    endpoints: Annotated[
        tuple[Annotated[str, PlainValidator(parse_endpoint)], ...],
        array(0, 16),
        AfterValidator(each_once),
    ] = ()
    prefix: Annotated[str, PlainValidator(parse_key_prefix)] = "/lbfwd/"
    ca_file: Text = ""
    certificate_file: Text = ""
    key_file: Text = ""
    user: Text = ""
    password_file: Text = ""
