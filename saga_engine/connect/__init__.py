"""Sagas inside CloudBlue Connect: the handlers of an extension, what carries on what no delivery does, and requests."""

from saga_engine.connect.application import SagaEventsApplication, on
from saga_engine.connect.parameters import Parameters
from saga_engine.connect.requests import AssetRequest, Item, TierConfigRequest

__all__ = ["AssetRequest", "Item", "Parameters", "SagaEventsApplication", "TierConfigRequest", "on"]
