"""A bundle order in one file: branches, a child saga, a pivot, a person's approval, and the later cancel order.

    python -m examples.bundle

The steps only print. What is shown is the order of things, and what the engine does about them in its worker.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from connect.eaas.core.responses import BackgroundResponse
from tenacity import wait_fixed

from saga_engine import Chain, Engine, Exclusive, Parallel, Saga, SagaContext, WaitFor
from transactions import BackgroundTransaction, Kind, RetryPolicy


class Shown(BackgroundTransaction):
    """A step that says what it does, and how it is undone."""

    does, undoes = "", ""

    def __init__(self, context: SagaContext) -> None:
        self.context = context

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        print(f"   {self.does}")
        self.context.state[self.name()] = self.context.idempotency_key
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        print(f"   {self.undoes}")
        return BackgroundResponse.done()


class ReserveStock(Shown):
    does, undoes = "reserve a device", "give the device back to the stock"


class CreateTenant(Shown):
    does, undoes = "create the tenant", "delete the tenant"


class AddUsers(Shown):
    does, undoes = "add 25 users", "remove the users"


class ReserveNumber(Shown):
    does, undoes = "reserve a telephone number", "give the number back"


class PortNumber(Shown):
    does, undoes = "order the porting", "withdraw the porting"


class SignContract(Shown):
    """The point of no return: after it the saga only goes forward."""

    kind = Kind.PIVOT
    does, undoes = "sign the contract", "terminate the contract"


class TellBilling(Shown):
    """Must succeed in the end; the first attempt fails."""

    kind = Kind.RETRIABLE
    retry = RetryPolicy(wait=wait_fixed(0.2))
    does, undoes = "tell billing", "tell billing to stop"

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        if self.context.attempt == 1:
            print("   tell billing: it is down, try again")
            raise ConnectionError("billing is down")
        return super().execute(request)


class TelephonySaga(Saga):
    """A child: it goes through, and is undone, as one step of the bundle."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [ReserveNumber, PortNumber]


class BundleSaga(Saga):
    """One execution for each asset at a time."""

    exclusive = Exclusive(key=lambda request: str(request["asset"]["id"]))

    def key(self, request: dict[str, Any]) -> str:
        return str(request["asset"]["id"])

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        together = Parallel(ReserveStock, Chain(CreateTenant, AddUsers))
        return [together, TelephonySaga, WaitFor("approved", timeout_s=86_400), SignContract, TellBilling]


class CancelSaga(Saga):
    """The later order that takes the bundle back: it finds the bundle by the asset, and undoes it first."""

    undoes = BundleSaga

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [ConfirmCancellation]


class ConfirmCancellation(Shown):
    does, undoes = "confirm the cancellation", "withdraw the confirmation"


def main() -> None:
    """Run the story."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'bundle.db'}"
        with Engine(url, sagas=[BundleSaga, CancelSaga]) as engine:
            bundle = engine.start(BundleSaga, {"id": "PR-1", "asset": {"id": "AS-1"}})
            engine.signal(bundle, "approved", {"by": "Ada"})
            engine.wait(bundle)
            _show(engine, bundle)
            cancel = engine.start(CancelSaga, {"id": "PR-2", "asset": {"id": "AS-1"}})
            engine.wait(cancel)
            _show(engine, cancel)
            _show(engine, bundle)


def _show(engine: Engine, saga_id: str) -> None:
    record = engine.get(saga_id)
    print(f"{saga_id}: {record.status.value}")
    print("   " + ", ".join(f"{step.name} {step.status.value}" for step in record.steps))


if __name__ == "__main__":
    main()
