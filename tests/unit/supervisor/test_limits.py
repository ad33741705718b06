"""Limits of a process, in one of its own."""

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


COLLECT = """
import gc, weakref
from lbfwd.supervisor.limits import shorten_collections
class Node: pass
def ring():
    node = Node()
    node.itself = node
    return node
kept = ring()
seen = weakref.ref(kept)
shorten_collections()
print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000)
del kept
gc.collect()
print(seen() is None)
shorten_collections()
print(seen() is None)
"""


def test_what_is_there_is_passed_over_until_the_next_time() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "False", "True"]
