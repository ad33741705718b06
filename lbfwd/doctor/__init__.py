"""``lbfwd doctor``: collects facts about a node or a backend, and says what is wrong with them."""
