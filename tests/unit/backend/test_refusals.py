"""What a machine may lack, and what is said then."""

import argparse
import os

import pytest

from lbfwd.backend import claim, run
from lbfwd.backend import filter as nft_filter
from lbfwd.backend.request import BackendError, parse
from lbfwd.cli import backend
from lbfwd.supervisor import log


@pytest.fixture(autouse=True)
def _logging_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(log, "configure", lambda: None)


def cli(*arguments):
    parser = argparse.ArgumentParser()
    backend.configure(parser)
    return backend.run(parser.parse_args(arguments))


def test_bad_addresses_end_with_1_and_a_line_each(capsys):
    assert cli("--vip", "x", "--node", "10.0.0.1", "--node", "::") == 1
    assert capsys.readouterr().err.splitlines() == [
        "lbfwd backend: --vip x: must be an IPv4 or IPv6 address",
        "lbfwd backend: --node ::: must not be the unspecified address",
    ]


@pytest.mark.parametrize(
    "arguments", [(), ("--vip", "192.0.2.1"), ("--node", "10.0.0.1"), ("--mtu", "x")]
)
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli(*arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_missing_nft_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(nft_filter.nft.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BackendError, match="no nft command: apt install nftables"):
        nft_filter.Filter("").sync()


def test_missing_capabilities_are_named(monkeypatch):
    monkeypatch.setattr(run.capabilities, "missing_here", lambda: ("CAP_NET_ADMIN", "CAP_NET_RAW"))
    with pytest.raises(BackendError, match="CAP_NET_ADMIN, CAP_NET_RAW missing: run as root"):
        run.run(parse(["192.0.2.1"], ["10.0.0.1"]))


def test_a_second_backend_is_refused_until_the_first_is_gone(monkeypatch):
    monkeypatch.setattr(claim, "NAME", f"\0lbfwd-backend-test-{os.getpid()}")
    said = rf"another lbfwd backend \(process {os.getpid()}\)"
    with claim.claim(), pytest.raises(BackendError, match=said):
        claim.claim()
    claim.claim().close()
