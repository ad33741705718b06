"""What clients notice when a node stops, starts or dies: ``python -m bench.failover``."""
