"""Work in threads and subprocesses that a cancellation must not leave behind half done."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NICE = 10


def be_nice() -> None:
    """Let this thread, and no other, give way: building tables must not take a worker's core."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


async def uninterrupted(work: Awaitable[T]) -> T:
    """Await ``work``; a cancellation is passed on only after the work has ended.

    So a clean-up never meets a thread that still uses what it takes away, nor an ``nft`` process
    that installs what it has just removed.
    """
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise


async def in_thread(
    executor: Executor | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a blocking function in ``executor`` (None: the loop's own), uninterrupted."""
    loop = asyncio.get_running_loop()
    return await uninterrupted(loop.run_in_executor(executor, partial(function, *args, **kwargs)))
