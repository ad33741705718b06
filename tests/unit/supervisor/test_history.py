"""One step back, and the time in which a reload must be confirmed."""

import asyncio

import pytest

from lbfwd.supervisor.errors import Refused
from lbfwd.supervisor.history import History
from tests.unit.supervisor.build import config

OLD = config(("weight = 2", "weight = 7"))
AN_HOUR_S = 3600.0
SOON_S = 0.05


def test_there_is_nothing_to_go_back_to_at_first_nor_after_going_back() -> None:
    history = History()
    with pytest.raises(Refused, match="nothing to undo"):
        history.previous()
    history.took_up(OLD, None)
    assert history.previous() == OLD
    history.went_back()
    with pytest.raises(Refused, match="nothing to undo"):
        history.previous()


def test_only_what_waits_can_be_confirmed() -> None:
    history = History()
    history.took_up(OLD, None)
    with pytest.raises(Refused, match="no reload waits"):
        history.confirm()
    history.took_up(OLD, 100.0)
    with pytest.raises(Refused, match=r"waits to be confirmed \(40 s left\)"):
        history.refuse_unconfirmed(60.0)
    history.confirm()
    history.refuse_unconfirmed(60.0)
    assert history.previous() == OLD, "what was confirmed can still be undone"


def test_it_is_overdue_when_nobody_confirms() -> None:
    async def scenario() -> None:
        now = asyncio.get_running_loop().time
        history = History()
        waiting = asyncio.create_task(history.overdue(now))
        history.took_up(OLD, None)
        await turns()
        assert not waiting.done(), "nothing is to be confirmed"
        history.took_up(OLD, now() + AN_HOUR_S)
        await turns()
        assert not waiting.done(), "there is time left"
        deadline = now() + SOON_S
        history.postpone(deadline)
        async with asyncio.timeout(20):
            await waiting
        assert now() >= deadline

    asyncio.run(scenario())


async def turns() -> None:
    """Let every task do what it can do now."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_confirmed_in_time_it_is_never_overdue() -> None:
    history = History()
    history.took_up(OLD, 5.0)
    history.confirm()
    assert not history.is_overdue(6.0)
    history.took_up(OLD, 5.0)
    assert history.is_overdue(5.0)
    history.postpone(7.0)
    assert not history.is_overdue(6.0)
