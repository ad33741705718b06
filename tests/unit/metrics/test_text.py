"""The text format, against prometheus_client's writer and its parser."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from lbfwd.metrics.family import counter, gauge, info
from lbfwd.metrics.text import write

# No surrogates: they cannot be written down. No other line ends: the parser splits at them.
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from('\\"\n')
)
LABELS = st.lists(st.tuples(TEXT, TEXT), max_size=4, unique=True)
NUMBERS = st.integers(0, 2**52) | st.floats(allow_nan=False, allow_infinity=False)


class Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def histogram(pool: str) -> Metric:
    family = HistogramMetricFamily("lbfwd_d_seconds", "How long.", labels=["pool"])
    family.add_metric([pool], [("0.1", 1), ("+Inf", 3)], 0.5)
    return family


def read(text: bytes) -> list[object]:
    return [
        (f.name, f.type, f.documentation, [(s.name, s.labels, s.value) for s in f.samples])
        for f in text_string_to_metric_families(text.decode())
    ]


@given(LABELS, NUMBERS)
def test_it_says_what_the_librarys_writer_says(pairs: list[tuple[str, str]], number: float) -> None:
    rows = [({"pool": one, "backend": other}, number) for one, other in pairs]

    def families() -> list[Metric]:
        return [
            gauge("lbfwd_g", "A gauge.", rows),
            counter("lbfwd_c", "A counter.", [(labels, abs(value)) for labels, value in rows]),
            info("lbfwd_i", "An info.", [labels for labels, _ in rows]),
            gauge("lbfwd_alone", "No labels.", [({}, number)]),
            *(histogram(one) for one, _ in pairs[:1]),
        ]

    assert read(b"".join(write(families()))) == read(generate_latest(Given(families())))


def test_a_line_is_as_the_format_wants_it() -> None:
    family = counter("lbfwd_c", "Counts.", [({"reason": 'a"b\\c\nd'}, 5)])
    assert write([family])[0].decode().splitlines() == [
        "# HELP lbfwd_c_total Counts.",
        "# TYPE lbfwd_c_total counter",
        r'lbfwd_c_total{reason="a\"b\\c\nd"} 5',
    ]
