"""Do the nodes of a fleet agree? Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lbfwd.fleet.ask import Answer
from lbfwd.supervisor.summary import Summary

T = TypeVar("T")


@dataclass(frozen=True)
class Differences:
    """What a node has otherwise than most others; where there are no most, each differs.

    ``services``: those that it does not forward alike. ``problems``: what else is wrong with it.
    """

    node: str
    configuration: bool = False
    services: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.configuration or bool(self.services) or bool(self.problems)


def compare(answers: Sequence[Answer[Summary]]) -> list[Differences]:
    """Return what each node has otherwise, in their order."""
    there = {answer.node: answer.found for answer in answers if answer.found}
    configured = _odd({node: found.configuration for node, found in there.items()})
    services = sorted({service for found in there.values() for service in found.fingerprints})
    odd = {
        service: _odd({node: found.fingerprints.get(service) for node, found in there.items()})
        for service in services
    }
    return [
        Differences(
            node=answer.node,
            configuration=answer.node in configured,
            services=tuple(service for service in services if answer.node in odd[service]),
            problems=_problems(answer),
        )
        for answer in answers
    ]


def _odd(values: Mapping[str, T]) -> set[str]:
    """Return the nodes whose value is not that of most others."""
    ranked = Counter(values.values()).most_common(2)
    if len(ranked) < 2:
        return set()
    (most, times), (_, next_times) = ranked
    return {node for node, value in values.items() if value != most or times == next_times}


def _problems(answer: Answer[Summary]) -> tuple[str, ...]:
    found = answer.found
    if found is None:
        return answer.problems
    wrong = (f"calls itself {found.node}",) if found.node != answer.node else ()
    refused = found.shared.problems if found.shared else ()
    return (*wrong, *refused)
