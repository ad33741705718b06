"""Whatever stands in the file: what comes out is a configuration, or the file cannot be read."""

import contextlib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbfwd.importer.note import UnreadableError
from lbfwd.importer.reasons import CHECKS, METHODS, REASONS, SCHEDULERS
from tests.unit.importer.texts import imported

NAMES = [
    *REASONS, *CHECKS, "virtual_server", "virtual_server_group", "real_server", "weight", "url",
    "HTTP_GET", "SSL_GET", "TCP_CHECK", "DNS_CHECK", "UDP_CHECK", "path", "status_code", "regex",
    "connect_port", "connect_timeout", "delay_loop", "retry", "protocol", "lb_algo", "lb_kind",
    "persistence_timeout", "payload", "require_reply", "name", "type", "virtualhost", "interface",
]  # fmt: skip
VALUES = [
    *SCHEDULERS, *METHODS, "192.0.2.10", "192.0.2.1-9", "192.0.2.0/30", "2001:db8::1", "10.0.0.1",
    "10.0.0.2", "group", "fwmark", "g", "0", "1", "80", "443", "65535", "65536", "-1", "1.5", "TCP",
    "UDP", "SCTP", "/", "/x y", '"a b"', "'", '"', "\\", "$A", "${A}", "200", "200-299", "x" * 99,
    "é", "\x7f", "\x00", "#", "!", "ab12", "www.example.com", "-", "a-b", "1-2-3", "::/127",
]  # fmt: skip
# Lines that fit where they stand more often than not, so that much is converted.
statement = st.builds(
    lambda name, values: " ".join([name, *values]),
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(VALUES), max_size=3),
)
block = st.recursive(
    statement,
    lambda inner: st.builds(
        lambda head, lines: "\n".join([f"{head} {{", *lines, "}"]),
        statement,
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)
checker = st.builds(
    lambda kind, lines: "\n".join([f"{kind} {{", *lines, "}"]),
    st.sampled_from(["TCP_CHECK", "HTTP_GET", "SSL_GET", "DNS_CHECK", "UDP_CHECK", *CHECKS]),
    st.lists(block, max_size=5),
)
server = st.builds(
    lambda n, port, lines: "\n".join([f"real_server 10.0.0.{n} {port} {{", *lines, "}"]),
    st.integers(0, 300),
    st.sampled_from(["", "80", "443", "8080"]),
    st.lists(st.one_of(statement, checker), max_size=4),
)
virtual = st.builds(
    lambda vip, port, lines, servers: "\n".join(
        [f"virtual_server {vip} {port} {{", *lines, *servers, "}"]
    ),
    st.sampled_from(["192.0.2.10", "2001:db8::10", "10.0.0.1", "group g", "fwmark 1"]),
    st.sampled_from(["", "0", "80", "443"]),
    st.lists(statement, max_size=4),
    st.lists(server, max_size=4),
)
group = st.builds(lambda lines: "\n".join(["virtual_server_group g {", *lines, "}"]),
                  st.lists(st.sampled_from(VALUES), max_size=4))  # fmt: skip
quiet = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quiet
@given(st.lists(st.one_of(virtual, group, block, st.just("$A=1")), max_size=4).map("\n".join))
def test_likely_files(tmp_path: Path, text: str) -> None:
    import_it(tmp_path, text)


@quiet
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text(tmp_path: Path, text: str) -> None:
    import_it(tmp_path, text)
    import_it(tmp_path, f"virtual_server 192.0.2.1 80 {{ real_server 10.0.0.1 80 {{ {text}\n}} }}")


def import_it(tmp_path: Path, text: str) -> None:
    """Convert; ``imported`` itself holds the result against the rules of a configuration."""
    with contextlib.suppress(UnreadableError):
        imported(tmp_path, text)
