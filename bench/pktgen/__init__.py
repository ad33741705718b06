"""The kernel's packet generator, pointed at a node: ``python -m bench.pktgen --help``.

It drives /proc/net/pktgen (Documentation/networking/pktgen.rst, net/core/pktgen.c) on the machine
that sends. How to use it: docs/pktgen.md.
"""
