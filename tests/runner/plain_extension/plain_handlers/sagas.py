"""The sagas of the plain handlers, and their steps."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from saga_engine import Saga
from saga_engine.connect import ApproveRequest, BackgroundResponse, RejectWhenUndone, UpdateParameters
from transactions import BackgroundTransaction, Kind

__all__ = ["ChangeSaga", "PurchaseSaga", "ResellerSaga"]

_CHILD_S = 60.0


class SomeCoreTransaction(BackgroundTransaction):
    """The transaction of the older framework's example, which keeps what it did in the cache."""

    def __init__(self, client: Any, logger: Any, config: Any, cache: Any) -> None:
        self.client = client
        self.logger = logger
        self.config = config
        self.cache = cache

    def name(self) -> str:
        return "Sample Transaction"

    def should_execute(self, request: dict[str, Any]) -> bool:
        return True

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        self.cache.put(request["id"], "executed")
        self.logger.info("Running Execute! in %s", self.config["POLL_S"])
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        raise e


class ChildSaga(Saga):
    """What another process carries out."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Nothing]


class Nothing(BackgroundTransaction):
    """Has no effect."""

    kind = Kind.READ_ONLY

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()


class InOtherProcesses(BackgroundTransaction):
    """Lets a forked and a spawned process carry a saga out, with the journal of this one."""

    kind = Kind.READ_ONLY

    def __init__(self, config: Any) -> None:
        self.config = dict(config)

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        for method in ("fork", "spawn"):
            child = multiprocessing.get_context(method).Process(
                target=carry_out, args=(self.config, f"{request['id']}-{method}"), daemon=True
            )
            child.start()
            child.join(_CHILD_S)
            if child.exitcode != 0:
                return BackgroundResponse.fail(f"the child by {method} ended with {child.exitcode}")
        return BackgroundResponse.done()


def carry_out(config: dict[str, str], key: str) -> None:
    """Carry a saga out in this process, and end it."""
    answer = ChildSaga.make(config, None, None).resolve({"id": key})
    # At once: what a thread of a pool has forked would want to join itself at its end, and fail.
    os._exit(0 if answer.status == "success" else 1)


class PurchaseSaga(Saga):
    """Plain, and in other processes besides."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [SomeCoreTransaction, InOtherProcesses, ApproveRequest]


class ComeBack(BackgroundTransaction):
    """An async step that waits once, for the time in a variable."""

    kind = Kind.READ_ONLY

    def __init__(self, config: Any, context: Any) -> None:
        self.config = config
        self.context = context

    async def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        if self.context.state.get("waited"):
            return BackgroundResponse.done()
        self.context.state["waited"] = True
        return BackgroundResponse.reschedule(self.config["POLL_S"])


class ChangeSaga(Saga):
    """Async."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [ComeBack, ApproveRequest]


class WriteReseller(UpdateParameters):
    """Writes what the vendor calls the reseller."""

    def values(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"reseller_id": "R-1", "contact": {"city": "Madrid"}}


class ResellerSaga(Saga):
    """Sets the configuration of a tier up."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [RejectWhenUndone, WriteReseller, ApproveRequest]
