"""Sagas inside CloudBlue Connect: handlers of an extension, what carries on what no delivery does, and requests."""

from saga_engine.connect.actions import approve, fail, inquire, refresh, update_parameters
from saga_engine.connect.application import SagaEventsApplication, on
from saga_engine.connect.parameters import Parameters
from saga_engine.connect.requests import AssetRequest, Item, TierConfigRequest

__all__ = [
    "AssetRequest",
    "Item",
    "Parameters",
    "SagaEventsApplication",
    "TierConfigRequest",
    "approve",
    "fail",
    "inquire",
    "on",
    "refresh",
    "update_parameters",
]
