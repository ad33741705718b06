"""``lbfwd capture``: packets before and after encapsulation, as pcapng."""
