"""Backends that answer health checks over TCP, one of which fails on command.

They are all addresses of the stage's sink, which drops everything else that comes in.
"""

import sys
from ipaddress import ip_address, ip_network

from bench.stage import BACKENDS, NODE, OUT, Stage, mac
from lbfwd.demo.lab import eventually

PORT = 9000
_SERVER = f"""
import socket
listening = socket.create_server(("", {PORT}), backlog=512)
while True:
    listening.accept()[0].close()
"""
_RULES = f"""
table netdev sink {{
  chain drop_all {{ type filter hook ingress device "s0" priority 0; policy drop;
    tcp dport {PORT} accept; }}
}}
table ip patients {{
  set ill {{ type ipv4_addr; }}
  chain input {{ type filter hook input priority 0;
    ip daddr @ill tcp dport {PORT} reject with tcp reset; }}
}}
"""
START_S = 10.0


class Ward:
    """The backends of a network that is routed to the stage's first one."""

    def __init__(self, stage: Stage, network: str) -> None:
        """Have them all answer."""
        self._sink = stage.sink
        self.first = ip_address(int(ip_network(network).network_address) + 1)
        at_node = f"{NODE} lladdr {mac(stage.node, OUT)} nud permanent dev s0"
        stage.sink.run("ip", "neighbour", "replace", *at_node.split())
        stage.sink.run("ip", "route", "replace", "local", network, "dev", "lo")
        stage.sink.run("nft", "-f", "-", stdin=_RULES)
        stage.sink.start(sys.executable, "-c", _SERVER)
        eventually(lambda: f":{PORT}" in stage.sink.run("ss", "-Hlnt"), START_S, "the backends")
        stage.node.run("ip", "route", "replace", network, "via", BACKENDS[0], "dev", OUT)

    def fail(self) -> None:
        """Let the first one refuse connections."""
        self._sink.run("nft", "add", "element", "ip", "patients", "ill", f"{{ {self.first} }}")

    def recover(self) -> None:
        """Let it answer again."""
        self._sink.run("nft", "flush", "set", "ip", "patients", "ill")
