"""What happens to an order: the sagas, each a list of steps."""

from __future__ import annotations

from typing import Any

from mail_connector.order_steps import Approve, AskForEmail, CheckQuantities, ConfirmCancel, FillIn, RejectIfUndone
from mail_connector.vendor_steps import (
    AwaitSubscription,
    CreateCustomer,
    CreateSubscription,
    DeleteCustomer,
    DeleteFormerSubscription,
    DeleteSubscription,
    ReplaceSubscription,
)
from saga_engine import Saga

__all__ = ["CancelSaga", "ChangeSaga", "PurchaseSaga"]


class PurchaseSaga(Saga):
    """A new asset: a customer and a subscription at the vendor."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [
            RejectIfUndone,
            AskForEmail,
            CheckQuantities,
            CreateCustomer,
            CreateSubscription,
            AwaitSubscription,
            FillIn,
            Approve,
        ]


class ChangeSaga(Saga):
    """Other quantities: a new subscription takes the place of the former one. Its steps at the vendor are async."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [RejectIfUndone, CheckQuantities, ReplaceSubscription, FillIn, Approve, DeleteFormerSubscription]


class CancelSaga(Saga):
    """The end of an asset."""

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [RejectIfUndone, DeleteSubscription, DeleteCustomer, ConfirmCancel]
