"""What happens in the demo, in order. Runs in namespaces that are ours (see sandbox.py)."""

from collections.abc import Callable
from pathlib import Path

from lbfwd.demo import checks
from lbfwd.demo.checks import Check
from lbfwd.demo.lab import Lab, eventually
from lbfwd.demo.screen import Screen
from lbfwd.demo.services import Backend, Node, requests, transfers, worker_cpus
from lbfwd.demo.tally import Phase, Tally
from lbfwd.demo.topology import PLACES, Network, build

WORKERS = 2
REQUESTS = 400  # a phase
PHASE_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 5.0
LEAVING = PLACES[1]
REMAINING = tuple(place for place in PLACES if place is not LEAVING)
NAMES = tuple(place.name for place in PLACES)


class Demo:
    """The network with everything running in it."""

    def __init__(self, lab: Lab, directory: Path, screen: Screen) -> None:
        """Build and start all of it. Raises LabError."""
        cpus = worker_cpus(WORKERS)
        self.tally = Tally()
        self._directory = directory
        self._screen = screen
        screen.step("Wiring client, router, node and backends")
        self.network: Network = build(lab)
        screen.step("Starting a web server and [bold]lbfwd backend[/] on each backend")
        self._backends = {place.name: self._backend(place.name) for place in PLACES}
        for backend in self._backends.values():
            backend.wait()
        screen.step(f"Starting [bold]lbfwd run[/] on the node, workers on cpus {cpus}")
        self.node = Node(self.network.node, directory, cpus)
        self.node.start(PLACES)

    def run(self) -> list[Check]:
        """Let traffic flow, change things under it, and check. Raises LabError."""
        found = self._balance()
        found += self._transfer()
        eventually(self._settled, SETTLE_TIMEOUT_S, "every packet is counted")
        status = self.node.status()
        return [*found, checks.workers_share(status), checks.accounted(status)]

    def stop(self) -> Check:
        """Stop lbfwd and the backends, as an operator would."""
        self._screen.step("Stopping everything")
        statuses = [self.node.stop(), *(backend.stop() for backend in self._backends.values())]
        return checks.stopped(statuses, self.node.guard())

    def _settled(self) -> bool:
        return checks.in_flight(self.node.status()) == 0

    def _backend(self, name: str) -> Backend:
        (place,) = (place for place in PLACES if place.name == name)
        return Backend(self.network.backends[name], place, self._directory)

    def _balance(self) -> list[Check]:
        """Take a backend out and bring it back while clients ask."""
        step, tally, name = self._screen.step, self.tally, LEAVING.name
        first = tally.begin("all three")
        with self._screen.live(tally), requests(self.network.client, tally):
            step("Asking both virtual IPs, each time on a new connection")
            self._finish(first)
            step(f"Taking backend {name} out of the configuration: [bold]lbfwd reload[/]")
            second = self._change(f"without {name}", lambda: self.node.reload(REMAINING))
            tally.wait(second, REQUESTS // 4, PHASE_TIMEOUT_S)
            step(f"Stopping backend {name} itself")
            self._backends[name].stop()
            self._finish(second)
            step(f"Starting backend {name} again and putting it back: [bold]lbfwd reload[/]")
            third = self._change(f"{name} is back", lambda: self._bring_back(name))
            self._finish(third)
        totals = tally.totals()
        return [
            checks.no_failures(totals),
            checks.no_resets(tally.phases),
            checks.both_families(totals, NAMES),
            checks.even(first, NAMES),
            checks.even(second, [place.name for place in REMAINING], [name]),
            checks.even(third, NAMES),
        ]

    def _change(self, title: str, change: Callable[[], None]) -> Phase:
        """Change something. What is asked meanwhile belongs neither to before nor to after."""
        self.tally.begin("")
        change()
        return self.tally.begin(title)

    def _finish(self, phase: Phase) -> None:
        self.tally.wait(phase, REQUESTS, PHASE_TIMEOUT_S)
        self._screen.shares(phase)

    def _bring_back(self, name: str) -> None:
        self._backends[name] = self._backend(name)
        self._backends[name].wait()
        self.node.reload(PLACES)

    def _transfer(self) -> list[Check]:
        client = self.network.client
        self._screen.step("Large uploads and downloads over IPv4 and IPv6")
        states = [self.node.status()]
        uploads = transfers(client, "upload")
        states.append(self.node.status())
        downloads = transfers(client, "download")
        states.append(self.node.status())
        found = [checks.transferred(transfer) for transfer in (*uploads, *downloads)]
        return [*found, checks.direct_return(uploads, downloads, states)]
