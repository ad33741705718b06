"""How numbers and times read on a screen."""

from datetime import UTC, datetime

_UNITS = ("", "k", "M", "G", "T")


def duration(seconds: float) -> str:
    """Return ``02:03:04``, with ``1 d`` in front of it from a day on."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour:02}:{minute:02}:{second:02}"
    return f"{days} d {clock}" if days else clock


def age(since: datetime) -> str:
    """Return how long ago that was."""
    return duration(max(0.0, (datetime.now(UTC) - since).total_seconds()))


def scaled(number: float) -> str:
    """Return three digits or so and a decimal unit: ``1.23k``, ``456M``."""
    unit = 0
    while abs(number) >= 999.5 and unit < len(_UNITS) - 1:
        number /= 1000
        unit += 1
    digits = 0 if number == int(number) and not unit else max(0, 3 - len(str(int(abs(number)))))
    return f"{number:.{digits}f}{_UNITS[unit]}"
