"""nft(8) as it is run: by a stand-in that says what the real one says."""

from pathlib import Path

import pytest

from lbfwd.net import nft


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Have nft be a shell script."""

    def become(script: str) -> None:
        (tmp_path / "nft").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nft").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return become


def test_a_script_is_its_input_and_errors_are_in_english(says) -> None:  # type: ignore[no-untyped-def]
    says('echo "$* $LC_ALL"; cat')
    assert nft.run("-f", "-", script="add table inet t\n") == "-f - C\nadd table inet t\n"


def test_one_that_ends_without_reading_says_why(says) -> None:  # type: ignore[no-untyped-def]
    says("echo 'Error: syntax error' >&2; exit 1")
    with pytest.raises(nft.NftError, match="nft -f -: Error: syntax error"):
        nft.run("-f", "-", script="x" * 1_000_000)


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ("Error: No such file or directory", nft.NothingThere, "nft list: Error: No such file"),
        ("Operation not permitted", nft.NftError, "^needs CAP_NET_ADMIN"),
        ("Error: Could not process rule", nft.NftError, "^nft list: Error: Could not"),
    ],
)
def test_what_it_says_has_its_kind(says, said: str, kind: type, text: str) -> None:  # type: ignore[no-untyped-def]
    says(f"echo '{said}' >&2; exit 1")
    with pytest.raises(nft.NftError, match=text) as caught:
        nft.run("list")
    assert type(caught.value) is kind


def test_one_that_hangs_is_not_waited_for(says, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    says("exec sleep 60")
    monkeypatch.setattr(nft, "TIMEOUT_S", 0.2)
    with pytest.raises(nft.NftError, match=r"nft list: no answer within 0\.2 s"):
        nft.run("list")


def test_none_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft.shutil, "which", lambda *_, **__: None)
    with pytest.raises(nft.NftError, match="no nft command: apt install nftables"):
        nft.run("list")
