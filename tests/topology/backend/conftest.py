import os
import subprocess
import sys

import pytest

from lbfwd.demo.lab import Lab, stop
from tests.topology.backend.site import (
    BACKEND_OPTIONS,
    HERE,
    VIP4,
    VIP6,
    Command,
    Site,
    has_gre_devices,
)


@pytest.fixture(scope="module")
def site():
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    gre = has_gre_devices()
    with Lab() as lab:
        yield Site(lab, gre)


@pytest.fixture
def user_space(site):
    if site.gre:
        pytest.skip("this kernel has GRE devices: user space unwraps nothing")


@pytest.fixture
def kernel_gre(site):
    if not site.gre:
        pytest.skip("this kernel has no GRE device (modules ip_gre and ip6_gre)")


@pytest.fixture
def command(site):
    """Start ``lbfwd backend`` on the backend; stopped at the end of the test."""
    started = []

    def start(*options, host=site.backend, **how):
        started.append(Command(host, *(options or BACKEND_OPTIONS), **how))
        return started[-1]

    yield start
    for running in started:
        stop(running.process)
        running.process.stderr.close()


@pytest.fixture
def script(site):
    """Start a Python script on a host and wait until it is ready."""
    started = []

    def start(host, name, *arguments):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = host.start(sys.executable, str(HERE / name), *arguments, **pipes)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        stop(process)
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def node(site, script):
    """Let the node wrap packets for the VIPs towards an address of the backend."""
    return lambda backend: script(site.node, "encapsulator.py", backend, VIP4, VIP6)
