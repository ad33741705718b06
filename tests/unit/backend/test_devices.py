"""GRE devices of the kernel; the kernel here is a fake, since not every kernel has any."""

import errno

import pytest
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from lbfwd.backend import decap
from lbfwd.backend.decap import Decapsulator
from lbfwd.backend.kernel import Kernel
from lbfwd.backend.request import BackendError


class FakeKernel:
    def __init__(self, kinds):
        self.kinds = kinds
        self.devices = {}

    def add_gre(self, device, kind):
        if kind not in self.kinds:
            return False
        self.devices[device] = None
        return True

    def bring_up(self, device, mtu):
        self.devices[device] = mtu

    def remove_device(self, device):
        del self.devices[device]


def test_where_the_kernel_unwraps_nothing_runs_in_user_space():
    kernel = FakeKernel({"gre", "ip6gre"})
    decapsulator = Decapsulator(kernel, (4, 6), 1456)
    decapsulator.open()
    decapsulator.bring_up()
    decapsulator.start(lambda: pytest.fail("a pump ended that should not be"))
    assert kernel.devices == {"lbfwd-gre4": 1456, "lbfwd-gre6": 1456}
    assert decapsulator.devices == ("lbfwd-gre4", "lbfwd-gre6")
    assert decapsulator.way == "IPv4: kernel, IPv6: kernel"
    assert decapsulator.losses() == {"malformed": 0, "refused": 0, "no_room": 0}
    decapsulator.close()
    assert kernel.devices == {}


def test_a_family_that_the_kernel_lacks_is_unwrapped_in_user_space(monkeypatch):
    """Without TUN, so that the first device is taken back when the second way fails."""
    monkeypatch.setattr(decap.tun, "PATH", "/dev/net/none")
    monkeypatch.setattr(decap, "_raw_socket", lambda family: open("/dev/null"))  # noqa: SIM115
    kernel = FakeKernel({"gre"})
    decapsulator = Decapsulator(kernel, (4, 6), 1456)
    with pytest.raises(BackendError, match=r"/dev/net/none: No such file .* no GRE device"):
        decapsulator.open()
    assert decapsulator.way == "IPv4: kernel, IPv6: user space"
    assert list(kernel.devices) == ["lbfwd-gre4"]
    decapsulator.close()
    assert kernel.devices == {}


@pytest.mark.parametrize("kind", ["gre", "ip6gre"])
def test_the_message_asks_for_an_external_device(kind):
    """IFLA_INFO_DATA (2) holds IFLA_GRE_COLLECT_METADATA (18, a flag without value) alone."""
    message = ifinfmsg()
    data = ("IFLA_INFO_DATA", {"attrs": [("IFLA_GRE_COLLECT_METADATA", True)]})
    message["attrs"] = [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind), data]})]
    message.encode()
    assert bytes.fromhex("0800 0200 0400 1200") in bytes(message.data)


class RefusingRoute:
    """An IPRoute whose kernel answers every request for a link with this error."""

    def __init__(self, code):
        self.code = code

    def link(self, *_arguments, **_keywords):
        raise NetlinkError(self.code)


def kernel_answering(code):
    kernel = Kernel.__new__(Kernel)
    kernel._ipr = RefusingRoute(code)
    return kernel


def test_an_unknown_kind_of_device_means_user_space():
    assert kernel_answering(errno.EOPNOTSUPP).add_gre("lbfwd-gre4", "gre") is False


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EEXIST, "another external gre device is in this network namespace"),
        (errno.EPERM, "gre device lbfwd-gre4: Operation not permitted"),
    ],
)
def test_every_other_refusal_is_told(code, said):
    with pytest.raises(BackendError, match=said):
        kernel_answering(code).add_gre("lbfwd-gre4", "gre")
