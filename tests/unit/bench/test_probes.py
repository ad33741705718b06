"""What bench.probes has a node check."""

import pytest

from bench.probes import BACKENDS, CONFIG, KINDS, PORT, VIP
from lbfwd.config import parse
from lbfwd.health.question import questions


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_configuration(kind: str) -> None:
    check, via = KINDS[kind]
    text = CONFIG.format(
        backends='{ address = "10.1.0.1" }', vip=VIP, type=check, via=via, port=PORT
    )
    config = parse(text, "lbfwd.toml")
    asked = [question for several in questions(config).values() for question in several]
    assert [bool(question.backend) for question in asked] == [via == "tunnel"] * (check != "none")
    assert all(question.interval_ms * 2000 == BACKENDS * 1000 for question in asked)
