"""Real traffic through lbfwd in network namespaces: the demo, and the lab that tests use too."""
