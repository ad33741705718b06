"""The configuration: read, checked as a whole, and then never changed."""

from lbfwd.config.key import HashKey
from lbfwd.config.load import load, parse
from lbfwd.config.model import (
    Backend,
    Config,
    Flows,
    Health,
    IPAddress,
    IPNetwork,
    Node,
    Pool,
    Service,
    Worker,
    Workers,
    WorkerSettings,
    entropy_bits,
)
from lbfwd.config.problem import ConfigError, Problem

__all__ = [
    "Backend",
    "Config",
    "ConfigError",
    "Flows",
    "HashKey",
    "Health",
    "IPAddress",
    "IPNetwork",
    "Node",
    "Pool",
    "Problem",
    "Service",
    "Worker",
    "WorkerSettings",
    "Workers",
    "entropy_bits",
    "load",
    "parse",
]
