"""lbfwd and the reflector, each with every setting on a stage of its own, delay probes in turn."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import loss
from bench.contestants import Contestant, frozen, reflecting
from bench.generate import Generator
from bench.loss import search
from bench.node_run import config, running
from bench.probe import Prober, Running, Way, direct_way, way_through_node
from bench.program import build
from bench.rings import Rings
from bench.scenario import MANY
from bench.stage import Stage
from bench.stream import Stream
from lbfwd.demo.lab import Lab

BUSY_POLL_US = 1000
SETTINGS = {
    "v3": Rings("v3"),
    "v3, busy poll": Rings("v3", busy_poll_us=BUSY_POLL_US),
    "v2": Rings("v2"),
    "v2, busy poll": Rings("v2", busy_poll_us=BUSY_POLL_US),
}
LOADS = (0.01, 0.5, 0.9)
OURS, LIMIT = "lbfwd", "reflector"
FLOWS = 1_048_576  # of a worker's table: lbfwd's default
# Beside other traffic; no multiple of the 1,000 a second in which blocks are handed over.
PROBE_RATE = 1999
STREAM_S = 1.0
SETTLE_S = 0.3  # of the stream: the generator has to start, and who was frozen to come to life

Delays = dict[tuple[str, str, float], list[Stream]]
"""A stream a round, by setting, contestant and load."""


@dataclass(frozen=True)
class Place:
    """A contestant on its stage."""

    contestant: Contestant
    generator: Generator
    way: Way


@dataclass(frozen=True)
class Race:
    """All contestants, standing still, by setting and name; and the way past all of them."""

    places: dict[tuple[str, str], Place]
    prober: Prober
    direct: Way


def sustained(directory: Path) -> int:
    """Return the frames a second that a node sustains on a stage: at most 0.1 % are lost."""
    with Lab() as lab:
        stage = Stage(lab)
        with running(stage, directory, config(loss.RINGS)) as node:
            return search(Generator(stage, directory), node.contestant())


@contextmanager
def lined_up(directory: Path) -> Iterator[Race]:
    """Start all contestants; one at a time goes on."""
    places = {}
    with ExitStack() as stack:
        program = build("reflect", directory)
        for setting, rings in SETTINGS.items():
            for name in (OURS, LIMIT):
                own = directory / f"{name}-{setting.replace(', ', '-').replace(' ', '-')}"
                own.mkdir()
                stage = Stage(stack.enter_context(Lab()))
                forwarder = start(stack, name, stage, own, program, rings)
                places[setting, name] = Place(
                    forwarder, Generator(stage, own), way_through_node(stage)
                )
        direct = direct_way(stage)
        stack.enter_context(frozen([place.contestant for place in places.values()]))
        yield Race(places, Prober(directory), direct)


def start(  # noqa: PLR0913, PLR0917 - what runs, where and how
    stack: ExitStack, name: str, stage: Stage, directory: Path, program: Path, rings: Rings
) -> Contestant:
    """Start a contestant."""
    if name == LIMIT:
        return stack.enter_context(reflecting(stage, program, "linear", rings))
    text = config(rings, flows=FLOWS)
    return stack.enter_context(running(stage, directory, text)).contestant()


def probe(race: Race, place: Place, rate: int, load: float) -> Stream:
    """Send a stream through a contestant at a load: the probes alone, or beside other traffic."""
    total = round(rate * load)
    alone = load == LOADS[0]
    place.contestant.thaw()
    try:
        stream = start_stream(race.prober, place.way, total if alone else PROBE_RATE)
        if not alone:
            # It has an end of its own: nothing that is not real time runs beside it.
            beside = total - PROBE_RATE
            place.generator.send(MANY.shape, MANY.flows, round(beside * STREAM_S), rate=beside)
        return settled(stream.wait())
    finally:
        place.contestant.freeze()


def past_the_node(race: Race, rate: int) -> Stream:
    """Send the stream of the least load over the direct cable."""
    return settled(start_stream(race.prober, race.direct, round(rate * LOADS[0])).wait())


def start_stream(prober: Prober, way: Way, rate: int) -> Running:
    """Start a stream that takes as long as the traffic beside it."""
    return prober.start(way, rate, round(rate * STREAM_S))


def settled(stream: Stream) -> Stream:
    """Return a stream without its beginning."""
    return stream.between(stream.sent[0] + round(SETTLE_S * 1e9), stream.sent[-1] + 1)


def compete(race: Race, rate: int, rounds: int) -> tuple[Delays, list[Stream]]:
    """Return the streams through each contestant and past them, in interleaved rounds."""
    delays: Delays = {(*key, load): [] for key in race.places for load in LOADS}
    direct = []
    for _ in range(rounds):
        direct.append(past_the_node(race, rate))
        for (setting, name, load), streams in delays.items():
            streams.append(probe(race, race.places[setting, name], rate, load))
    return delays, direct
