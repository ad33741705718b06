"""The limit of descriptors, in a process of its own."""

import subprocess
import sys

CODE = """
import resource
from lbfwd.supervisor.limits import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_as_many_descriptors_as_may_be() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["512", "512", "512"]
