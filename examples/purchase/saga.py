"""The purchase as a saga: which steps, in which order, with which services."""

from __future__ import annotations

import logging
import os
from typing import Any

from connect.client import ConnectClient

from examples.purchase.steps import (
    ApproveRequest,
    CreateCustomer,
    CreateSubscription,
    FillParameters,
    ValidateParameters,
)
from saga_engine import Saga, SagaRecord

__all__ = ["PurchaseSaga"]

_SERVER_URL = "http://127.0.0.1:8765"
_CONFIG_DEFAULTS = {
    "VENDOR_URL": f"{_SERVER_URL}/vendor",
    "VENDOR_TIMEOUT_S": "10",
    "CONNECT_API_URL": f"{_SERVER_URL}/public/v1",
    "CONNECT_API_KEY": "ApiKey SU-000-000-000:purchase-example",
    "APPROVE_TEMPLATE_ID": "TL-276-377-545",
}


class PurchaseSaga(Saga):
    """Carry a purchase order out at the vendor and approve it in Connect."""

    def middlewares(self, request: dict[str, Any]) -> list[Any]:
        return []

    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [ValidateParameters, CreateCustomer, CreateSubscription, FillParameters, ApproveRequest]

    @classmethod
    def services(cls, record: SagaRecord | None) -> dict[str, Any]:
        """Build what the steps need where no Connect runner hands it in: on the command line and at recovery.

        Args:
            record: the execution; every order uses the same services, so it is not looked at.

        Returns:
            `client`, `config` (each key may be set as an environment variable) and `logger`.
        """
        config = {key: os.environ.get(key, default) for key, default in _CONFIG_DEFAULTS.items()}
        client = ConnectClient(
            config["CONNECT_API_KEY"],
            config["CONNECT_API_URL"],
            max_retries=0,  # the client's own retries are forgotten in a crash; the steps' are journaled
            timeout=(5, 10),
        )
        logger = logging.LoggerAdapter(logging.getLogger("examples.purchase"), {})
        return {"client": client, "config": config, "logger": logger}
