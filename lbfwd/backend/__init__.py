"""A machine as a backend: unwraps GRE from the nodes, owns the VIPs, answers clients directly.

Pure: ``request`` (what is asked), ``plan`` (what follows from it), ``routes`` (routes for replies).
I/O: ``kernel`` (netlink), ``sysctl``, ``filter`` (nftables), ``decap`` (TUN and raw sockets),
``watch`` (signals, netlink events), ``run`` (the order of it all).
"""
