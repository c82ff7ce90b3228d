"""Plugins that installed packages announce as entry points: found, imported, and told apart from what is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saga_engine.extensions import PluginLoadError, PluginManager, PluginUnit, discover_plugins

CODE = """
from saga_engine.extensions import plugin

@plugin(id="{name}", version="1")
class Announced: ...

NOT_A_PLUGIN = 42
"""


class Site:
    """A directory in which packages are installed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def install(self, package: str, *announcements: str, code: str | None = None) -> None:
        """Install a package that announces entry points such as `name = package:Announced`."""
        (self.directory / f"{package}.py").write_text(CODE.format(name=package) if code is None else code)
        information = self.directory / f"{package}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = ["[saga_engine.plugins]", *announcements, ""]
        (information / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A directory of packages that are gone after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in ("plugs_one", "plugs_two"):
        monkeypatch.delitem(sys.modules, package, raising=False)
    return Site(tmp_path)


def ids_of(found: list[type | PluginUnit]) -> list[str]:
    """Add what was found, and give the ids."""
    manager = PluginManager()
    return [manager.attach(thing) for thing in found]


def test_d1_what_packages_announce_is_found_by_name_and_can_be_added(site: Site) -> None:
    site.install("plugs_two", "second = plugs_two:Announced")
    site.install("plugs_one", "first = plugs_one:Announced")
    assert ids_of(discover_plugins(["first", "second"])) == ["plugs_one", "plugs_two"]
    assert ids_of(discover_plugins(["second", "first"])) == ["plugs_two", "plugs_one"]
    found = ids_of(discover_plugins())
    assert found.index("plugs_one") < found.index("plugs_two")


def test_d1_what_is_not_wanted_is_not_imported(site: Site) -> None:
    site.install("plugs_one", "broken = plugs_one:Announced", code="raise ZeroDivisionError")
    site.install("plugs_two", "second = plugs_two:Announced")
    assert ids_of(discover_plugins(["second"])) == ["plugs_two"]


def test_d1_a_name_that_nobody_announces_is_an_error_that_lists_what_is_announced(site: Site) -> None:
    site.install("plugs_one", "first = plugs_one:Announced")
    with pytest.raises(PluginLoadError, match=r"a plugin 'other' in the group 'saga_engine\.plugins'.*first"):
        discover_plugins(["first", "other"])
    with pytest.raises(PluginLoadError, match=r"announced: none"):
        discover_plugins(["first"], group="a group that nobody uses")
    assert discover_plugins(group="a group that nobody uses") == []


def test_d1_a_package_that_cannot_be_imported_is_an_error_that_names_it_and_the_reason(site: Site) -> None:
    site.install("plugs_one", "first = plugs_one:Announced", code="import nobody_has_this")
    told = r"'first' of plugs_one:Announced \(plugs_one\) cannot be imported \(ModuleNotFoundError: .*nobody_has_this"
    with pytest.raises(PluginLoadError, match=told) as raised:
        discover_plugins(["first"])
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


def test_d1_an_announced_thing_that_is_no_plugin_is_an_error_that_says_what_to_do(site: Site) -> None:
    site.install("plugs_one", "first = plugs_one:NOT_A_PLUGIN")
    with pytest.raises(PluginLoadError, match=r"entry point 'first' of .* 42 is no plugin: decorate the class"):
        discover_plugins(["first"])


def test_d1_two_packages_that_announce_one_name_are_an_error_that_names_both(site: Site) -> None:
    site.install("plugs_one", "first = plugs_one:Announced")
    site.install("plugs_two", "first = plugs_two:Announced")
    with pytest.raises(
        PluginLoadError, match=r"two packages announce a plugin 'first': .* and .*Uninstall one of them"
    ):
        discover_plugins(["first"])
