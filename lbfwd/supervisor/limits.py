"""How much of the machine this process may use."""

import resource


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as the hard limit says (getrlimit(2)): a probe has one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
