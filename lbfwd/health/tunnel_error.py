"""What the tunnel for probes refuses or fails to do."""


class TunnelError(Exception):
    """Probes cannot go through the tunnel; the text says why and what helps."""
