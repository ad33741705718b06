"""lbfwd: a layer-4 network load balancer for Linux in the manner of Google's Maglev."""

__version__ = "0.1.0"
