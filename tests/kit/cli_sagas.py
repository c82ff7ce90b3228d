"""Small sagas for tests of the command line: each shows one way in which an execution can go."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from tenacity import stop_after_attempt, wait_fixed

from saga_engine import Chain, Exclusive, Parallel, Saga, SagaContext, SagaRecord, WaitFor
from transactions import BackgroundTransaction, RetryPolicy, Suspend

DONE = BackgroundResponse.done()


class Step(BackgroundTransaction):
    """A step with an undo."""

    def execute(self, request: dict[str, Any]) -> Any:
        return DONE

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        return DONE


class Reserve(Step):
    """The first step."""


class Charge(Step):
    """The second step."""


class Ship(Step):
    """The last step."""

    def execute(self, request: dict[str, Any]) -> Any:
        if request.get("is_refused"):
            return BackgroundResponse.fail("nobody ships\nto the moon")
        return DONE


class Order(Saga):
    """Three steps; the last one refuses if the request says so."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, Charge, Ship]

    @classmethod
    def services(cls, record: SagaRecord) -> dict[str, Any] | None:
        return {"config": {"REQUEST": record.request["id"], "STATUS": record.status.value}}


class Announce(Step):
    """Says which services it got."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def execute(self, request: dict[str, Any]) -> Any:
        return BackgroundResponse.skip(f"{self.config['REQUEST']} {self.config['STATUS']}")


class Announced(Order):
    """Ends skipped, and shows what services(record) was given."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Announce]


class CannotUndo(Step):
    """Completes, and then cannot be undone."""

    compensation_retry = RetryPolicy(stop=stop_after_attempt(2))

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        raise ConnectionError("the vendor is gone")


class Parking(Order):
    """Parks while it is undone."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, CannotUndo, Ship]


class ParkingWithoutServices(Parking):
    """The same, but nobody can go on with it on the command line."""

    @classmethod
    def services(cls, record: SagaRecord) -> dict[str, Any] | None:
        return None


class Poll(Step):
    """Waits a moment, and is done when it runs again."""

    def execute(self, request: dict[str, Any]) -> Any:
        asked = Path("asked")
        if asked.exists():
            return DONE
        asked.touch()
        return Suspend(BackgroundResponse.reschedule(), timeout_s=request.get("timeout_s", 600))


class Polling(Order):
    """Suspends once."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, Poll, Ship]


class Hang(Step):
    """Says that it runs, and then hangs until it is told to go on, or for a minute."""

    def execute(self, request: dict[str, Any]) -> Any:
        Path("hanging").touch()
        until = time.monotonic() + 60
        while not Path("go-on").exists() and time.monotonic() < until:
            time.sleep(0.01)
        return DONE


class Hanging(Order):
    """Hangs in the middle."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, Hang, Ship]


class HangAsync(Step):
    """The same on an event loop, for a minute."""

    async def execute(self, request: dict[str, Any]) -> Any:
        try:
            await asyncio.to_thread(Path("hanging").touch)
            await asyncio.sleep(60)
        finally:
            Path("let-go").touch()  # noqa: ASYNC240 - a task that is being cancelled cannot wait for a thread
        return DONE


class HangingAsync(Order):
    """Hangs in an async step."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, HangAsync, Ship]


class Raising(Saga):
    """Mode select: the caller gets what the transaction raises."""

    mode = "select"

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [("boom", lambda request: True, self._boom)]

    @staticmethod
    def _boom(request: dict[str, Any]) -> Any:
        raise KeyError("boom")


class Misdeclared(Order):
    """Cannot be used."""

    park_policy = "never"


class Stubborn(Step):
    """Does not let go at the first signal."""

    def execute(self, request: dict[str, Any]) -> Any:
        Path("hanging").touch()
        try:
            time.sleep(60)
        except BaseException:
            Path("stubborn").touch()
            time.sleep(60)
        return DONE


class Clinging(Order):
    """Hangs in a step that does not let go."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Stubborn]


class Scan(Step):
    """In a branch of its own."""


class Pack(Step):
    """The first step of the other branch."""


class Label(Step):
    """The second step of the other branch."""


class Delivery(Saga):
    """A child: two steps."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, Ship]


class Whole(Order):
    """Branches, a child saga, and a person's approval."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Parallel(Scan, Chain(Pack, Label)), Delivery, WaitFor("approved", timeout_s=600), Charge]


class AlwaysRefused(Step):
    """Cannot be undone, and is the last step of a child."""

    def execute(self, request: dict[str, Any]) -> Any:
        raise ConnectionError("nobody answers")

    def compensate(self, request: dict[str, Any], e: Exception) -> Any:
        raise TimeoutError("nor now")

    compensation_retry = RetryPolicy(stop=stop_after_attempt(1))


class Stranded(Saga):
    """A child that parks."""

    compensation_retry = RetryPolicy(stop=stop_after_attempt(1))

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, AlwaysRefused]


class Stranding(Order):
    """Parks in a child."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Charge, Stranded]


class Count(Step):
    """Fails until the file `fixed` is there, and then shows what its state says."""

    def __init__(self, context: SagaContext) -> None:
        self.context = context

    def execute(self, request: dict[str, Any]) -> Any:
        if not Path("fixed").exists():
            raise ConnectionError("not yet")
        return BackgroundResponse.skip(f"counted {self.context.state.get('count')}")


class Counting(Order):
    """Tries again in an hour."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve, CountHourly]


class CountHourly(Count):
    """The same, once an hour, and harmless to repeat."""

    retry = RetryPolicy(wait=wait_fixed(3600))
    is_idempotent = True


class Alone(Polling):
    """One at a time."""

    exclusive = Exclusive(key=lambda request: "the only one")
