"""The configuration: read, checked as a whole, and then never changed."""

from lbfwd.config.key import HashKey
from lbfwd.config.load import load, parse
from lbfwd.config.model import Backend, Config, Health, IPAddress, Node, Pool, Service, Workers
from lbfwd.config.problem import ConfigError, Problem

__all__ = [
    "Backend",
    "Config",
    "ConfigError",
    "HashKey",
    "Health",
    "IPAddress",
    "Node",
    "Pool",
    "Problem",
    "Service",
    "Workers",
    "load",
    "parse",
]
