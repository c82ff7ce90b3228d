"""Load: so many runs at once, for so many seconds. Standard library only: the peers' environments import it too.

What is counted is every run that began before the time was up, over the time until the last of them ended.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable

__all__ = ["in_tasks", "in_threads"]


def in_threads(run: Callable[[int], object], at_once: int, seconds: float) -> float:
    """Call `run(number)` in so many threads, each one call after the other; give the calls a second.

    Raises:
        Exception: the first that a call raised; the others stop after the call that they are in.
    """
    numbers, counts, errors = itertools.count(), [0] * at_once, list[BaseException]()
    ends_at = 0.0
    is_open = threading.Event()

    def work(slot: int) -> None:
        is_open.wait()
        try:
            while time.perf_counter() < ends_at and not errors:
                run(next(numbers))
                counts[slot] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(slot,), daemon=True) for slot in range(at_once)]
    for thread in threads:
        thread.start()
    began_at = time.perf_counter()
    ends_at = began_at + seconds
    is_open.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.perf_counter() - began_at)


async def in_tasks(run: Callable[[int], Awaitable[object]], at_once: int, seconds: float) -> float:
    """Do the same in so many tasks of the running event loop."""
    numbers, count = itertools.count(), 0
    began_at = time.perf_counter()

    async def work() -> None:
        nonlocal count
        while time.perf_counter() < began_at + seconds:
            await run(next(numbers))
            count += 1

    tasks = [asyncio.ensure_future(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return count / (time.perf_counter() - began_at)
