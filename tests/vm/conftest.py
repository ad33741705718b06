"""The one guest in which all jobs run. docs/testing.md."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import guest as guests
from tests.vm import kernel as kernels
from tests.vm.guest import Guest

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT = REPOSITORY / "build/vm"  # kernel, initramfs, the last console
TOOLS = ("qemu-system-x86_64", "busybox", "cpio", "depmod", "ipvsadm", "apt-get")

collect_ignore = ["inside"]  # what the guest runs


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(lacking or TOOLS)}: deploy/prerequisites.sh vm")
    KEPT.mkdir(parents=True, exist_ok=True)
    kernel = kernels.fetch(KEPT)
    initramfs = kernels.initramfs(kernel, REPOSITORY, KEPT)
    with guests.started(kernel, initramfs, KEPT / "console.log") as started:
        yield started
