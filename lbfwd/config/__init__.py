"""The configuration: read, checked as a whole, and then never changed."""

from lbfwd.config.announce import Announce
from lbfwd.config.health import Health
from lbfwd.config.key import HashKey
from lbfwd.config.load import load, parse
from lbfwd.config.model import (
    Admin,
    Backend,
    Config,
    Flows,
    Metrics,
    Node,
    Pool,
    Service,
    Worker,
    Workers,
    WorkerSettings,
    entropy_bits,
)
from lbfwd.config.problem import ConfigError, Problem
from lbfwd.config.values import IPAddress, IPNetwork

__all__ = [
    "Admin",
    "Announce",
    "Backend",
    "Config",
    "ConfigError",
    "Flows",
    "HashKey",
    "Health",
    "IPAddress",
    "IPNetwork",
    "Metrics",
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
