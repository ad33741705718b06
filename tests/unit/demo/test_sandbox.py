"""What the demo says where it cannot run."""

from pathlib import Path

import pytest

from lbfwd.demo import sandbox


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    for tool in sandbox.TOOLS:
        if tool not in ("nft", "ip"):
            (tmp_path / tool).touch(mode=0o755)
    with pytest.raises(sandbox.SandboxError) as caught:
        sandbox.require_tools(str(tmp_path))
    assert "missing: ip, nft\n" in str(caught.value)
    assert "apt-get install iproute2 nftables" in str(caught.value)
    for tool in ("nft", "ip"):
        (tmp_path / tool).touch(mode=0o755)
    sandbox.require_tools(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "forbidding"),
    [
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
        ("user.max_user_namespaces", "0"),
    ],
)
def test_the_sysctl_that_forbids_is_named(name: str, forbidding: str) -> None:
    complaints = {sandbox.USER.name: "unshare failed: Operation not permitted"}
    text = sandbox.no_namespaces(complaints, {name: forbidding})
    assert f"{name} = {forbidding}" in text
    assert "Operation not permitted" in text
    assert "sudo lbfwd demo" in text
    other = {"0": "1", "1": "0"}[forbidding]
    assert name not in sandbox.no_namespaces(complaints, {name: other})


def test_root_is_told_of_capabilities_and_not_to_become_root() -> None:
    complaints = {way.name: "no" for way in (sandbox.ROOT, sandbox.USER)}
    text = sandbox.no_namespaces(complaints, {})
    assert "CAP_SYS_ADMIN" in text
    assert "sudo" not in text


def test_system_folders_are_searched_after_the_users_own() -> None:
    assert sandbox.with_sbin({"PATH": "/usr/bin", "HOME": "/h"}) == {
        "PATH": "/usr/bin:/usr/sbin:/sbin",
        "HOME": "/h",
    }
