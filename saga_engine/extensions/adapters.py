"""A service provider as a plugin: `Engine(plugins=[VendorProvider])` gives its services to every saga."""

from __future__ import annotations

from typing import Any

from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.plugin import Plugin
from saga_engine.extensions.unit import Host, PluginUnit
from saga_engine.services.providers import ServiceProvider

__all__ = ["ProviderPlugin", "is_provider"]

#: Where plugins contribute service providers.
_PROVIDERS_POINT = "service_providers"


class ProviderPlugin(PluginUnit):
    """A service provider as a plugin, whose id is the path of its class. Nothing of it runs.

    Args:
        provider: the provider; or its class, which the plugin's container builds.
    """

    def __init__(self, provider: ServiceProvider | type[ServiceProvider]) -> None:
        kind = provider if isinstance(provider, type) else type(provider)
        version = getattr(kind, "version", None)
        self.plugin = Plugin(
            id=f"{kind.__module__}.{kind.__qualname__}", version=version if isinstance(version, str) else "0"
        )
        self._provider = provider

    def contribute(self, host: Host, ledger: Ledger) -> None:
        """Contribute the provider."""
        given = self._provider
        provider = host.container.get(given) if isinstance(given, type) else given
        host.contribute(ledger, _PROVIDERS_POINT, provider)


def is_provider(thing: Any) -> bool:
    """Tell whether this is a service provider, or a class of such."""
    return issubclass(thing if isinstance(thing, type) else type(thing), ServiceProvider)
