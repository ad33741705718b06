"""``lbfwd tune``: sets the kernel and the network cards of a node up for its workers."""
