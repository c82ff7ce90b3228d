"""The configuration file of an engine: its journal, its variables, its plugins, extensions and modules.

    journal = "sqlite:///saga.db"

    [variables]                                  # what steps get as `config`
    VENDOR_URL = "https://api.vendor.example"

    [plugins]
    enabled = true                               # false: no plugin, extension or module is loaded
    discover = false                             # also load all that installed packages announce
    load = [{ plugin = "shop.plugins:Shop", config = { region = "eu" } }, { plugin = "audit" }]

    [extensions.poller]                          # one with background tasks
    extension = "shop.poller:Poller"             # left out: what a package announces under the name
    interval_s = 5

    [[modules]]
    module = "shop.modules.Prices"
    config = { currency = "EUR" }

TOML, or the same in YAML. What it does not know is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saga_engine.extensions.autoconfiguration import PluginsAutoConfiguration
from saga_engine.extensions.discovery import announced_plugins
from saga_engine.extensions.errors import ConfigError

__all__ = ["Configuration", "load_configuration"]

_FILE_BYTES_MAX = 1_048_576
_KEYS = ("journal", "variables", "plugins", "extensions", "modules")
_PLUGINS_KEYS = ("enabled", "discover", "load")
_PLUGIN_KEYS = ("plugin", "config")
_ENABLED = ("plugins", "enabled")


@dataclass(frozen=True)
class Configuration:
    """What a file says, checked as far as that needs no import.

    Attributes:
        journal: the URL of the journal; None: the file names none.
        variables: what steps get as `config`.
        plugins: names of plugins with their configurations, in order.
        extensions: configurations of extensions with background tasks, by name.
        modules: the items of `modules`, in order.
    """

    journal: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    extensions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    modules: tuple[Mapping[str, Any], ...] = ()

    def arguments(self) -> dict[str, Any]:
        """Give what `Engine` takes, by name."""
        journal = {} if self.journal is None else {"journal": self.journal}
        plugged = {"plugins": self.plugins, "extensions": self.extensions, "modules": self.modules}
        return {**journal, "config": self.variables or None, **plugged}


def load_configuration(path: str | Path) -> Configuration:
    """Read a configuration file.

    Args:
        path: a `.toml`, `.yaml` or `.yml` file of at most 1 MiB.

    Raises:
        ConfigError: it cannot be read, is no TOML or YAML, or says what nobody knows; with the place in it.
    """
    given = _read(Path(path))
    _refuse_unknown(given, _KEYS, ())
    variables, journal = _table(given, "variables", ()), given.get("journal")
    if journal is not None and not isinstance(journal, str):
        raise ConfigError(f"{journal!r} is no journal: give a URL such as sqlite:///saga.db", ("journal",))
    if not PluginsAutoConfiguration(given).is_enabled:
        _refuse_undecided(given)
        return Configuration(journal, variables)
    extensions = _table(given, "extensions", ())
    for name in extensions:
        _table(extensions, name, ("extensions",))
    modules = given.get("modules", [])
    if not isinstance(modules, list):
        raise ConfigError(f"{modules!r} is no list: give a list of modules", ("modules",))
    return Configuration(journal, variables, _plugins(_table(given, "plugins", ())), extensions, tuple(modules))


def _refuse_undecided(given: Mapping[str, Any]) -> None:
    """Do not leave out in silence what somebody wrote down."""
    written = [f"[{name}]" for name in ("plugins", "extensions", "modules") if given.get(name)]
    if written and "enabled" not in (given.get("plugins") or {}):
        raise ConfigError(f"{', '.join(written)} is not loaded: write true, or false to leave it out", _ENABLED)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise ConfigError(f"{path} has more than {_FILE_BYTES_MAX} bytes: that is no configuration")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    parse = {".toml": _parse_toml, ".yaml": _parse_yaml, ".yml": _parse_yaml}.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(f"{path}: nobody knows that format: name it .toml, .yaml or .yml")
    given = parse(path, text)
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path} holds a {type(given).__name__}: write names and values")
    return given


def _parse_toml(path: Path, text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


def _parse_yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(f"{path}: to read YAML, install saga-engine[yaml]; or write TOML") from error
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error


def _plugins(section: Mapping[str, Any]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    _refuse_unknown(section, _PLUGINS_KEYS, ("plugins",))
    items = section.get("load", [])
    if not isinstance(items, list):
        raise ConfigError(f"{items!r} is no list: give a list of plugins", ("plugins", "load"))
    named = tuple([_plugin(item, ("plugins", "load", f"<item {place}>")) for place, item in enumerate(items)])
    is_discovering = section.get("discover", False)
    if not isinstance(is_discovering, bool):
        raise ConfigError(f"{is_discovering!r} is neither true nor false", ("plugins", "discover"))
    if not is_discovering:
        return named
    taken = {name for name, _ in named}
    return (*named, *((name, {}) for name in announced_plugins() if name not in taken))


def _plugin(item: Any, path: tuple[str, ...]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, str):
        return item, {}
    if not isinstance(item, Mapping) or not isinstance(item.get("plugin"), str):
        raise ConfigError(f"{item!r} is no plugin: write plugin = 'package.module:Class' and its config", path)
    _refuse_unknown(item, _PLUGIN_KEYS, path)
    return item["plugin"], _table(item, "config", path)


def _table(given: Mapping[str, Any], name: str, path: tuple[str, ...]) -> Mapping[str, Any]:
    found = given.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{found!r} is no table: write names and values", (*path, name))
    return found


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], path: tuple[str, ...]) -> None:
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise ConfigError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}", path)
