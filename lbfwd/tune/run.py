"""Rule by rule: look, tell, change. What is refused is told, and stops nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lbfwd.config import Config
from lbfwd.tune.facts import Facts
from lbfwd.tune.rules import RULES, queues, with_queues
from lbfwd.tune.step import Action, Step


@dataclass(frozen=True)
class Outcome:
    """What became of a step. ``refused``: why it could not be done."""

    step: Step
    refused: str = ""


def tune(
    config: Config, look: Callable[[], Facts], act: Callable[[Action], str]
) -> Iterator[Outcome]:
    """Change what is not as it should be.

    ``look`` reads the facts, for each rule anew: a change of the queues changes the interrupts.
    ``act`` returns why it could not, or nothing.
    """
    for rule in RULES:
        for step in tuple(rule(config, look())):
            yield Outcome(step, act(step.do))


def foresee(config: Config, facts: Facts) -> Iterator[Outcome]:
    """Return what ``tune`` would change, if nothing is refused."""
    then = with_queues(config, facts)
    return (
        Outcome(step) for rule in RULES for step in rule(config, facts if rule is queues else then)
    )
