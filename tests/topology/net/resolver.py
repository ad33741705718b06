"""Net in its own thread, as the supervisor uses it, and what iproute2 says beside it."""

import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from lbfwd.net.resolve import Net
from tests.topology.net.wire import inside, until


class Resolver:
    """Net in a plain thread that belongs to the host's namespace."""

    def __init__(self, host):
        self.net = Net()
        self._pool = ThreadPoolExecutor(1)
        with inside(host):
            self._pool.submit(int).result()  # starts the thread, in the namespace

    def call(self, method, *arguments):
        return self._pool.submit(method, *arguments).result()

    def resolve(self, *backends, sources=()):
        backends = [ip_address(backend) for backend in backends]
        found = self.call(self.net.resolve, backends, [ip_address(s) for s in sources])
        assert list(found) == backends
        return list(found.values())

    def one(self, backend, sources=()):
        return self.resolve(backend, sources=sources)[0]

    def wait(self, backend, hops=1, sources=()):
        """The resolution once it has so many hops."""

        def resolved():
            found = self.one(backend, sources)
            return found if len(found.hops) == hops else None

        return until(resolved, f"{hops} hops to {backend}: {self.one(backend, sources)}")

    def close(self):
        try:
            self.call(self.net.close)
        finally:
            self._pool.shutdown()


def ip(host, *arguments):
    return host.run("ip", *arguments)


def route(host, *arguments):
    family = ["-6"] if ":" in arguments[0] or ":" in arguments[1] else []
    host.run("ip", *family, "route", "add", *arguments)


def neighbours(host):
    """What iproute2 says: {address: (state, whether managed)}."""
    entries = json.loads(host.run("ip", "-j", "-d", "neighbour", "show", "nud", "all"))
    return {
        entry["dst"]: (entry["state"][0], "managed" in entry)
        for entry in entries
        if not entry["dst"].startswith(("ff", "224."))
    }


def shape(resolution):
    return [(hop.link.name, str(hop.gateway), str(hop.source), hop.mtu) for hop in resolution.hops]


def bytes_of(text):
    return bytes.fromhex(text.replace(":", ""))
