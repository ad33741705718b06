"""What bench.detection has a node check."""

from bench.detection import SETTINGS, address_of, config
from lbfwd.config import parse


def test_each_setting_is_a_pool_with_a_server_that_dies_and_one_that_does_not() -> None:
    pools = {pool.name: pool for pool in parse(config(), "lbfwd.toml").pools}
    assert len(pools) == len(SETTINGS)
    for setting in SETTINGS:
        pool = pools[setting.name]
        dies, stays = pool.backends
        assert (pool.health.interval_ms, pool.health.fall) == (setting.interval_ms, setting.fall)
        assert (dies.name, str(dies.address)) == ("dies", address_of(setting))
        assert dies.address != stays.address
    assert len({address_of(setting) for setting in SETTINGS}) == len(SETTINGS)
