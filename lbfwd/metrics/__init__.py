"""What Prometheus is told of a node: docs/metrics.md."""
