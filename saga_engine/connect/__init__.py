"""Sagas inside CloudBlue Connect: the handlers of an extension, and what carries on what no delivery does."""

from saga_engine.connect.application import SagaEventsApplication, on

__all__ = ["SagaEventsApplication", "on"]
