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


RING = """
import asyncio, gc, weakref
from lbfwd.supervisor import limits
class Node: pass
def ring():
    node = Node()
    node.itself = node
    return weakref.ref(node), node
def is_gone(seen):
    gc.collect()
    return seen() is None
"""
COLLECT = """
seen, kept = ring()
limits.collect_all()
print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000)
del kept
print(is_gone(seen))
limits.collect_all()
print(is_gone(seen))
"""
CHANGE = """
async def main():
    limits.CHANGES, limits.COLLECT_S = 3, 0.0
    limits.collect_all()
    heap, found = limits.Heap(), []
    async def change(count):
        with heap.changing():
            print(gc.isenabled())
            made = [[number] for number in range(count)]
            found.append(ring()[0])
        print(gc.isenabled(), len(gc.get_objects()) < 1000)
        return made
    for count in (100_000, 100_000, 10_000):
        kept = await change(count)
        print([is_gone(seen) for seen in found])
        del kept
    kept = await change(100_000)
    async with asyncio.timeout(10):
        while found[-1]():
            await asyncio.sleep(0)
    print([is_gone(seen) for seen in found])
asyncio.run(main())
"""


def printed(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", RING + code], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_what_is_there_is_passed_over_until_the_next_time() -> None:
    assert printed(COLLECT) == ["True True", "False", "True"]


def test_what_a_large_change_made_is_passed_over_and_garbage_goes_after_a_few() -> None:
    assert printed(CHANGE) == [
        *("False", "True True", str([False])),
        *("False", "True True", str([False, False])),
        *("False", "True False", str([False, False, True])),
        *("False", "True True", str([True] * 4)),
    ]
