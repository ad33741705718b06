"""What lbfwd wants to reach, and whether it did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.measure import Figure, figure


@dataclass(frozen=True)
class Target:
    """A bound, and what each round gave for it (mostly a ratio of two figures of that round)."""

    name: str
    bound: float
    at_least: bool
    values: tuple[float, ...]

    def meets(self, value: float) -> bool:
        """Return whether a value is on the right side of the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def figure(self) -> Figure:
        """The median of the rounds and its interval."""
        return figure(self.values)

    @property
    def reached(self) -> bool:
        """The median meets the bound."""
        return self.meets(self.figure.median)

    @property
    def missed(self) -> bool:
        """The whole interval misses the bound: noise does not explain it."""
        return not self.meets(self.figure.low) and not self.meets(self.figure.high)

    def plain(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "name": self.name,
            "bound": self.bound,
            "at_least": self.at_least,
            "values": list(self.values),
        }


def from_plain(plain: Mapping[str, object]) -> Target:
    """Read what `plain` gave. Raises KeyError, TypeError or ValueError on anything else."""
    values = plain["values"]
    if not isinstance(values, Sequence) or not isinstance(plain["bound"], int | float):
        raise TypeError(f"no target: {plain!r}")
    bound, wanted = float(plain["bound"]), bool(plain["at_least"])
    return Target(str(plain["name"]), bound, wanted, tuple(map(float, values)))


def at_least(name: str, bound: float, values: Sequence[float]) -> Target:
    """Want a median of at least that."""
    return Target(name, bound, True, tuple(values))


def at_most(name: str, bound: float, values: Sequence[float]) -> Target:
    """Want a median of at most that."""
    return Target(name, bound, False, tuple(values))
