"""Plugins, extensions and modules: one design of what is added to the engine, and taken out again."""

from saga_engine.extensions import errors
from saga_engine.extensions.application import ExtensionManager
from saga_engine.extensions.autoconfiguration import PluginsAutoConfiguration
from saga_engine.extensions.aware import (
    ApiClientFactoryAware,
    AuthenticationAware,
    ConfigAware,
    EngineAware,
    ExtensionServiceProvider,
    JournalAware,
    LoggerAware,
)
from saga_engine.extensions.background import ExtensionBase
from saga_engine.extensions.cached import cached
from saga_engine.extensions.callbacks import Callbacks
from saga_engine.extensions.discovery import discover_plugins
from saga_engine.extensions.errors import (
    ConfigError,
    PluginError,
    PluginLoadError,
    PluginResolutionError,
    PluginStartError,
    PluginStateError,
    PluginStopError,
)
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.module_api import ModuleApi
from saga_engine.extensions.modules import load_modules
from saga_engine.extensions.plugin import (
    Plugin,
    PluginDescriptor,
    PluginState,
    extension,
    extension_point,
    plugin,
)
from saga_engine.extensions.points import Points
from saga_engine.extensions.registry import ExtensionRegistry
from saga_engine.extensions.service import ExtensionService
from saga_engine.extensions.unit import Host, PluginUnit

__all__ = [
    "ApiClientFactoryAware",
    "AuthenticationAware",
    "Callbacks",
    "ConfigAware",
    "ConfigError",
    "EngineAware",
    "ExtensionBase",
    "ExtensionManager",
    "ExtensionRegistry",
    "ExtensionService",
    "ExtensionServiceProvider",
    "Host",
    "JournalAware",
    "Ledger",
    "LoggerAware",
    "ModuleApi",
    "Plugin",
    "PluginDescriptor",
    "PluginError",
    "PluginLoadError",
    "PluginManager",
    "PluginResolutionError",
    "PluginStartError",
    "PluginState",
    "PluginStateError",
    "PluginStopError",
    "PluginUnit",
    "PluginsAutoConfiguration",
    "Points",
    "cached",
    "discover_plugins",
    "errors",
    "extension",
    "extension_point",
    "load_modules",
    "plugin",
]
