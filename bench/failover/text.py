"""Configurations of the fleet's daemons."""

from pathlib import Path

from bench import nginx
from lbfwd.demo.lab import LabError

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
VIPS = ("192.0.2.10", "2001:db8::10")
HTTP, ECHO = 80, 7
BACKENDS = {"a": "10.0.1.2", "b": "10.0.2.2", "c": "10.0.3.2"}

_LBFWD = """
hash_key = "000102030405060708090a0b0c0d0e0f"
[node]
name = "{name}"
interfaces = ["eth0"]
source = ["{address}"]
[workers]
cpus = [{cpu}]
rx_ring_mib = 32
tx_ring_frames = 1024
flows = 65536
[metrics]
listen = ""
[announce]
table = 100
drain_s = 20
[[pool]]
name = "web"
backends = [{backends}]
[pool.health]
type = "http"
port = 80
path = "/name"
interval_ms = 1000
fall = 5
"""
_SERVICE = """
[[service]]
vip = "{vip}"
protocol = "{protocol}"
port = {port}
pool = "web"
"""
_NGINX = nginx.template(
    """
  server {{
    listen 80;
    listen [::]:80;
    location = /name {{ return 200 "{name}"; }}
  }}""",
    http="keepalive_timeout 600s; keepalive_requests 1000000;",
    connections=2048,
)


def lbfwd(name: str, address: str, cpu: int) -> str:
    """Return a node's configuration: HTTP and echo on both VIPs."""
    backends = ", ".join(f'{{ name = "{n}", address = "{a}" }}' for n, a in BACKENDS.items())
    services = (
        _SERVICE.format(vip=vip, protocol=protocol, port=port)
        for vip in VIPS
        for protocol, port in (("tcp", HTTP), ("udp", ECHO))
    )
    node = _LBFWD.format(name=name, address=address, cpu=cpu, backends=backends)
    return node + "".join(services)


def web(name: str, root: Path) -> str:
    """Return a backend's configuration: connections live for ever, and it tells its name."""
    return _NGINX.format(name=name, root=root)


def deployed(name: str, *pairs: tuple[str, str]) -> str:
    """Return a file of deploy/ with texts replaced, each of which must be there.

    Raises LabError.
    """
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for old, new in pairs:
        if old not in text:
            raise LabError(f"deploy/{name} has no {old!r}")
        text = text.replace(old, new)
    return text
