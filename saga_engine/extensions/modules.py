"""Modules: classes named in the configuration, given their part of it and a `ModuleApi`. Each becomes a plugin.

A module is built as `Module(config, api)`. `config` is what its static method `parse_config(config: dict)` gives, if
it has one, else its part of the configuration as it is. The order of the configuration is the order of callbacks, and
decides between two web resources of one path.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saga_engine.extensions.errors import ConfigError
from saga_engine.extensions.ledger import Ledger
from saga_engine.extensions.manager import PluginManager
from saga_engine.extensions.module_api import ModuleApi
from saga_engine.extensions.plugin import Plugin
from saga_engine.extensions.unit import Host, PluginUnit

__all__ = ["ModuleUnit", "load_modules"]

#: What an item of the configuration consists of.
_ITEM = frozenset({"module", "config"})


def load_modules(items: Any, manager: PluginManager, *, section: str = "modules", rank: int = 0) -> list[str]:
    """Build the modules that a configuration names, and add them to a manager, in their order.

    Every `parse_config` is called before the first module is built. If one cannot be built, those before it are
    removed again.

    Args:
        items: a list of dicts: under `module` the class as `package.module.Class` (or the class itself), under
            `config`, which may be missing, its configuration, a dict.
        manager: where they are added.
        section: the name of the list in the configuration, for errors.
        rank: the place of the first of them among all plugins; the others follow.

    Returns:
        The ids of the plugins: `package.module.Class`; `package.module.Class#2` for its second item.

    Raises:
        ConfigError: an item is wrong, or its `parse_config` raised; with its path, such as `modules.<item 0>.config`.
            Nothing was built then.
        Exception: what the constructor of a module raises, as it is.
    """
    if items is None:
        return []
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes)):
        raise ConfigError(f"{items!r} is no list: give a list of modules", (section,))
    units: list[ModuleUnit] = []
    taken = {descriptor.plugin.id for descriptor in manager.plugins()}
    for number, item in enumerate(items):
        units.append(_unit_of(item, (section, f"<item {number}>"), taken))
        taken.add(units[-1].plugin.id)
    return _attached(units, manager, rank)


def _attached(units: list[ModuleUnit], manager: PluginManager, first_rank: int) -> list[str]:
    """Add them all, or none."""
    added: list[str] = []
    try:
        for rank, unit in enumerate(units, first_rank):
            added.append(manager.attach(unit, unit.configuration, rank))
    except BaseException:
        for plugin_id in reversed(added):
            manager.detach(plugin_id)
        raise
    return added


class ModuleUnit(PluginUnit):
    """A module as a plugin. Nothing of it runs by itself.

    Args:
        module_type: the class.
        configuration: its part of the configuration; None: an empty one.
        path: where that stands, for errors.
        plugin_id: the plugin's id; None: the class as `module.QualifiedName`.

    Raises:
        ConfigError: the configuration is no dict, or `parse_config` raised.
    """

    def __init__(
        self, module_type: type, configuration: Any = None, path: Iterable[str] = (), plugin_id: str | None = None
    ) -> None:
        self.module_type = module_type
        self.configuration = {} if configuration is None else configuration
        self._path = tuple(path)
        version = getattr(module_type, "version", None)
        self.plugin = Plugin(plugin_id or _name_of(module_type), version if isinstance(version, str) else "0")
        #: What has been parsed and not been used yet: a reload may come with another configuration.
        self._parsed = [self._parse(self.configuration)]

    def contribute(self, host: Host, ledger: Ledger) -> None:
        """Build the module, which registers what it has to."""
        config = self._parsed.pop() if self._parsed else self._parse(dict(host.configuration))
        api = ModuleApi(host, ledger)
        try:
            self.module_type(config, api)
        except ConfigError as error:
            raise _located(error, self._path) from error
        finally:
            api.close()

    def _parse(self, configuration: Any) -> Any:
        if not isinstance(configuration, dict):
            raise ConfigError(f"{configuration!r} is no dict: give the configuration as names and values", self._path)
        given = copy.deepcopy(configuration)  # it may be changed in place
        parse = getattr(self.module_type, "parse_config", None)
        if parse is None:
            return given
        if not isinstance(inspect.getattr_static(self.module_type, "parse_config"), (staticmethod, classmethod)):
            raise ConfigError(f"{_name_of(self.module_type)}.parse_config: put @staticmethod above it", self._path)
        if inspect.iscoroutinefunction(parse):
            raise ConfigError(f"{_name_of(self.module_type)}.parse_config is async: make it a plain method", self._path)
        try:
            return parse(given)
        except ConfigError as error:
            raise _located(error, self._path) from error
        except Exception as error:
            told = f"{_name_of(self.module_type)}.parse_config raised {type(error).__name__}: {error}"
            raise ConfigError(told, self._path) from error


def _unit_of(item: Any, path: tuple[str, ...], taken: set[str]) -> ModuleUnit:
    if not isinstance(item, Mapping):
        raise ConfigError(f"{item!r} is no module: write `module: package.module.Class` and its `config`", path)
    unknown = sorted(str(name) for name in item if name not in _ITEM)
    if unknown:
        raise ConfigError(f"unknown: {', '.join(unknown)}; a module has `module` and `config`", path)
    module_type = _class_of(item.get("module"), (*path, "module"))
    plugin_id = name = _name_of(module_type)
    number = 1
    while plugin_id in taken:
        number += 1
        plugin_id = f"{name}#{number}"
    return ModuleUnit(module_type, item.get("config"), (*path, "config"), plugin_id)


def _class_of(named: Any, path: tuple[str, ...]) -> type:
    """Give the class that an item names.

    Raises:
        ConfigError: there is no such class, or its file cannot be imported.
    """
    if isinstance(named, type):
        return named
    module_name, _, class_name = named.rpartition(".") if isinstance(named, str) else ("", "", "")
    if not module_name or not class_name:
        raise ConfigError(f"{named!r} names no class: write package.module.Class", path)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # whatever the file does while it is imported
        raise ConfigError(f"{named} cannot be imported: {type(error).__name__}: {error}", path) from error
    if not isinstance(found, type):
        raise ConfigError(f"{named} is {found!r}, which is no class: name the class of the module", path)
    return found


def _located(error: ConfigError, path: tuple[str, ...]) -> ConfigError:
    """Make the same error with the place in the whole configuration before its own."""
    return ConfigError(error.message, (*path, *error.path))


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
