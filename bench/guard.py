"""The node's ingress guard, for what forwards without lbfwd: ``python -m bench.guard INTERFACE``.

The kernel's own stack then costs every forwarder the same.
"""

import asyncio
import sys

from bench.frames import VIPS
from lbfwd.net import guard

if __name__ == "__main__":
    asyncio.run(guard.install(sys.argv[1:], list(VIPS.values())))
