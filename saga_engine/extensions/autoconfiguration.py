"""Auto-configuration: a service provider that binds one registry and one manager if the configuration says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saga_engine.extensions.errors import ConfigError
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.registry import ExtensionRegistry
from saga_engine.services.bindings import Registration
from saga_engine.services.container import Container
from saga_engine.services.providers import ServiceProvider

__all__ = ["PluginsAutoConfiguration"]


class PluginsAutoConfiguration(ServiceProvider):
    """Binds `extension_registry` and `plugin_manager`, by these names and by their types, where plugins are enabled.

    Args:
        configuration: the whole configuration. Plugins are enabled by `{"plugins": {"enabled": True}}`; a bool.

    Raises:
        ConfigError: `plugins` is no dict, or `enabled` no bool.
    """

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self.is_enabled = _is_enabled(configuration)

    def registrations(self) -> Sequence[Registration]:
        """List what is bound: nothing unless plugins are enabled."""
        if not self.is_enabled:
            return []
        by_type = [
            Registration(ExtensionRegistry, _registry_by_type, "provider", type(self).__name__),
            Registration(PluginManager, _manager_by_type, "provider", type(self).__name__),
        ]
        return [*super().registrations(), *by_type]

    def provide_extension_registry(self) -> ExtensionRegistry:
        """Make the registry that all share."""
        return ExtensionRegistry()

    def provide_plugin_manager(self, extension_registry: ExtensionRegistry, container: Container) -> PluginManager:
        """Make the manager that fills the registry."""
        return PluginManager(extension_registry, container=container)


def _registry_by_type(container: Container) -> ExtensionRegistry:
    registry: ExtensionRegistry = container.get("extension_registry")
    return registry


def _manager_by_type(container: Container) -> PluginManager:
    manager: PluginManager = container.get("plugin_manager")
    return manager


def _is_enabled(configuration: Mapping[str, Any]) -> bool:
    section = configuration.get("plugins", {})
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"{section!r} is no configuration of plugins: give a dict, such as enabled: true", ["plugins"]
        )
    is_enabled = section.get("enabled", False)
    if not isinstance(is_enabled, bool):
        raise ConfigError(f"{is_enabled!r} is neither true nor false", ["plugins", "enabled"])
    return is_enabled
