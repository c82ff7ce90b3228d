"""Services that a test gives, in the place of those that a saga provides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saga_engine.saga import CacheProvider
from saga_engine.services import ServiceProvider
from saga_engine.services.bindings import Registration
from saga_engine.services.plans import Key

__all__ = ["providers_with"]


class _Doubles(ServiceProvider):
    """All providers of a saga as one, in which the test's services win."""

    def __init__(self, providers: Sequence[Any], services: Mapping[Key, Any]) -> None:
        self._providers = providers
        self._services = services

    def registrations(self) -> Sequence[Registration]:
        given = [Registration(key, value, "instance", "services=") for key, value in self._services.items()]
        for provider in self._providers:
            instance = provider() if isinstance(provider, type) else provider
            given.extend(r for r in instance.registrations() if r.key not in self._services)
        return given


def providers_with(providers: Mapping[str, Any], services: Mapping[Key, Any] | None) -> Mapping[str, ServiceProvider]:
    """Give a saga's `providers` with these services, by name or by type, in front."""
    declared = {"cache": CacheProvider, **providers}
    return {"cache": _Doubles(list(declared.values()), services or {})}
