"""A logger that is bound to a request: its lines carry the ids of request, asset and tiers, and no secrets."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from saga_engine.connect.requests import AssetRequest, ConnectRequest
from saga_engine.connect.tier_requests import TierConfigRequest, view_of
from saga_engine.logs import StepLogger

__all__ = ["RequestLogger", "request_ids", "request_logger"]


class RequestLogger(StepLogger):
    """A logger or LoggerAdapter with a request's ids in `extra`, and the request's id before each message.

    Secrets are masked as in the loggers of steps; what the wrapped adapter adds stays.
    """

    def __init__(self, logger: Any, ids: dict[str, str]) -> None:
        super().__init__(logger)
        self._ids = ids

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the request's id before the message, and add the ids to what the caller gave as `extra`."""
        msg, kwargs = super().process(msg, kwargs)
        who = self._ids.get("request_id", "").replace("%", "")  # which would take an argument of the message
        return (f"{who}: {msg}" if who and isinstance(msg, str) else msg), kwargs

    def _fields(self) -> dict[str, Any]:
        return dict(self._ids)


def request_logger(logger: Any, request: dict[str, Any] | ConnectRequest) -> Any:
    """Bind a logger to a request.

        log = request_logger(self.logger, request)
        log.info("the tenant is there")         # "PR-5852-1608-0000-001: the tenant is there"

    Args:
        logger: a `logging.Logger`, a `LoggerAdapter`, a structlog logger, or any object with the methods of a logger,
            which is given back as it is. One that is bound to a request already is bound to this one instead.
        request: an asset request or a tier configuration request, or a view over it.

    Returns:
        For a logger or adapter a `LoggerAdapter` that adds what `request_ids` gives to `extra`.

    Raises:
        BadValue: the request is neither of the two.
    """
    ids = request_ids(request)
    while isinstance(logger, RequestLogger):
        logger = logger.logger
    if isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        return RequestLogger(logger, ids)
    return logger.bind(**ids) if hasattr(logger, "bind") else logger


def request_ids(request: dict[str, Any] | ConnectRequest) -> dict[str, str]:
    """Give the ids by which one finds a request again, those that it has.

    Returns:
        Of an asset request `request_id`, `asset_id`, `customer_id`, `tier1_id` and `tier2_id`; of a tier configuration
        request `request_id`, `tier_config_id` and `account_id`.
    """
    view = view_of(request)
    ids = {"request_id": view.field("id", None)}
    if isinstance(view, AssetRequest):
        ids["asset_id"] = view.field("asset.id", None)
        ids.update({f"{name}_id": account.get("id") for name, account in view.tiers.items()})
    if isinstance(view, TierConfigRequest):
        ids["tier_config_id"] = view.field("configuration.id", None)
        ids["account_id"] = view.field("configuration.account.id", None)
    return {name: str(value) for name, value in ids.items() if value}
