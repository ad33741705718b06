"""How much of the machine this process may use, and how its threads share the interpreter."""

import resource
import sys

# The event loop lets go of the interpreter at each system call. While another thread computes (a
# pass, a status), it gets it back only after the switch interval: with Python's 5 ms, a few hundred
# system calls of probes are a second.
SWITCH_INTERVAL_S = 0.0001


def prefer_event_loop() -> None:
    """Have threads that compute give the interpreter back soon (sys.setswitchinterval)."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as the hard limit says (getrlimit(2)): a probe has one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
