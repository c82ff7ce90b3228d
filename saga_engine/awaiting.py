"""Async service providers, awaited while the steps of a drive are built: that is plain code, which cannot await.

The loop on which they run is the one on which async steps of the drive will: that of the caller of `aresolve`, else
the engine's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

import anyio.to_thread

from saga_engine.bridges import bridge_to
from saga_engine.calls import Bridge
from saga_engine.services import AsyncServiceWanted

__all__ = ["bridge_or", "prepared"]

T = TypeVar("T")

#: What waits for async providers here; None: nothing can, as this is the loop on which they would run.
_bridge: ContextVar[Bridge | None] = ContextVar("saga_engine_services_bridge")


def bridge_or(default: Bridge) -> Bridge | None:
    """Give what waits for async providers in this context; None: nothing can."""
    return _bridge.get(default)


async def prepared(prepare: Callable[[], T], *, is_waiting: bool) -> T:
    """Run plain code that builds the steps of a drive, for this event loop: here or, if it has to wait, in a thread.

    Args:
        prepare: the code. It may be run twice: it must not have changed anything when it raises AsyncServiceWanted.
        is_waiting: it waits for something in any case.
    """
    if not is_waiting:
        token = _bridge.set(None)
        try:
            return prepare()
        except AsyncServiceWanted:
            pass  # it is run again, in a thread, for which this loop awaits what is wanted
        finally:
            _bridge.reset(token)
    token = _bridge.set(bridge_to(asyncio.get_running_loop()))
    try:
        return await anyio.to_thread.run_sync(prepare)
    finally:
        _bridge.reset(token)
