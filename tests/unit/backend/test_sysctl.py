from unittest.mock import Mock

import pytest

from lbfwd.backend import sysctl
from lbfwd.backend.request import BackendError
from lbfwd.backend.sysctl import Setting, Sysctls, arp_settings, rp_filter_settings

IGNORE, ANNOUNCE = "ipv4/conf/all/arp_ignore", "ipv4/conf/all/arp_announce"


@pytest.mark.parametrize(
    ("before", "after"), [((0, 0), (1, 2)), ((1, 1), (1, 2)), ((2, 2), (2, 2)), ((8, 0), (8, 2))]
)
def test_arp_is_tightened_and_never_loosened(before, after):
    settings = arp_settings(dict(zip((IGNORE, ANNOUNCE), before, strict=True)))
    assert {s.path: s.value for s in settings} == dict(zip((IGNORE, ANNOUNCE), after, strict=True))


@pytest.mark.parametrize("everywhere", [0, 1, 2])
@pytest.mark.parametrize("own", [0, 1, 2])
def test_only_the_tunnel_loses_its_reverse_path_filter(everywhere, own):
    """At no moment is any other device's effective value, max(all, own), below what it was."""
    values = {"all": everywhere, "default": own, "eth0": own, "lo": 0, "lbfwd-tun": own}
    before = dict(values)
    for setting in rp_filter_settings(dict(values), ["lbfwd-tun"]):
        values[setting.path.split("/")[2]] = setting.value
        for device in ("eth0", "lo", "default"):
            effective = max(values["all"], values[device])
            assert effective == max(before["all"], before[device]), (setting, device)
    assert values["all"] == 0
    assert values["lbfwd-tun"] == 0


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Stand-ins for /proc/sys/net."""
    monkeypatch.setattr(sysctl, "ROOT", tmp_path)
    monkeypatch.setattr(sysctl, "log", Mock())

    def put(path, value):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{value}\n")

    put("a/x", 0)
    put("a/y", 1)
    return put


def test_what_was_changed_gets_its_value_back(files, tmp_path):
    sysctls = Sysctls()
    sysctls.apply([Setting("a/x", 2), Setting("a/y", 1), Setting("a/x", 1)])
    assert (tmp_path / "a/x").read_text() == "1\n"
    sysctls.restore()
    assert (tmp_path / "a/x").read_text() == "0\n"
    assert (tmp_path / "a/y").read_text() == "1\n"


def test_what_somebody_else_has_changed_since_is_theirs(files, tmp_path):
    sysctls = Sysctls()
    sysctls.apply([Setting("a/x", 1), Setting("a/y", 0)])
    files("a/x", 2)
    sysctls.restore()
    assert (tmp_path / "a/x").read_text() == "2\n"
    assert (tmp_path / "a/y").read_text() == "1\n"


def test_a_device_that_is_gone_does_not_stop_the_others(files, tmp_path):
    sysctls = Sysctls()
    sysctls.apply([Setting("a/x", 1), Setting("a/y", 0)])
    (tmp_path / "a/y").unlink()
    sysctls.restore()
    assert (tmp_path / "a/x").read_text() == "0\n"


def test_a_refusal_names_the_sysctl_and_leaves_the_undo_complete(files, tmp_path):
    sysctls = Sysctls()
    with pytest.raises(BackendError, match="sysctl net/a/none = 1: No such file"):
        sysctls.apply([Setting("a/x", 1), Setting("a/none", 1)])
    sysctls.restore()
    assert (tmp_path / "a/x").read_text() == "0\n"
