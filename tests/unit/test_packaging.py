"""What is installed is what is tested: the wheel's own packages, complete, typed, with a sorted surface."""

from __future__ import annotations

import configparser
import importlib
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

PROJECT_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("middleware", "saga_engine", "transactions")
TEST_COMMAND = re.compile(r"<!-- test-command -->\s*```\w*\n(.+?)```", re.DOTALL)


@pytest.fixture(scope="module")
def distribution() -> metadata.Distribution:
    """The installed saga-engine."""
    try:
        return metadata.distribution("saga-engine")
    except metadata.PackageNotFoundError:
        pytest.fail("saga-engine is not installed here, and the tests are for the built wheel: run `tox`")


def installed_files(distribution: metadata.Distribution) -> set[PurePosixPath]:
    """The wheel's files below the three packages."""
    files = {PurePosixPath(str(file)) for file in distribution.files or ()}
    return {file for file in files if file.parts[0] in PACKAGES and "__pycache__" not in file.parts}


def source_files() -> set[PurePosixPath]:
    """The same for the source tree."""
    found = [file for package in PACKAGES for file in (PROJECT_ROOT / package).rglob("*") if file.is_file()]
    files = {PurePosixPath(file.relative_to(PROJECT_ROOT)) for file in found}
    return {file for file in files if "__pycache__" not in file.parts}


def importable_packages() -> Iterator[str]:
    """The three packages and the packages below them."""
    for name in PACKAGES:
        yield name
        below = pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.")
        yield from (module.name for module in below if module.ispkg)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_imported_from_the_installed_wheel(package: str, distribution: metadata.Distribution) -> None:
    imported_from = Path(str(importlib.import_module(package).__file__)).resolve()
    ours = {Path(str(distribution.locate_file(file))).resolve() for file in installed_files(distribution)}
    assert imported_from in ours, (
        f"`{package}` came from {imported_from}, which is no file of the installed saga-engine: "
        "run `tox`, and let no other distribution install a package of that name"
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_has_a_package_of_the_same_name(package: str) -> None:
    holders = {
        other.metadata["Name"]
        for other in metadata.distributions()
        if any(file.parts[0] == package for file in other.files or ())
    }
    assert holders == {"saga-engine"}


def test_the_wheel_holds_every_file_of_the_three_packages_and_no_other(
    distribution: metadata.Distribution,
) -> None:
    assert installed_files(distribution) == source_files()


def test_the_wheel_holds_sql_and_a_py_typed_for_each_package(distribution: metadata.Distribution) -> None:
    files = installed_files(distribution)
    assert {file.parts[0] for file in files if file.name == "py.typed"} == set(PACKAGES)
    assert [file for file in files if file.suffix == ".sql"]


def test_every_package_has_a_sorted_surface_and_each_of_its_names_exists() -> None:
    for name in importable_packages():
        package = importlib.import_module(name)
        surface = list(package.__all__)
        assert surface == sorted(set(surface)), f"{name}.__all__ is not sorted, or names something twice"
        missing = [public for public in surface if not hasattr(package, public)]
        assert not missing, f"{name}.__all__ promises {missing}, which {name} does not have"


def test_the_version_is_the_same_wherever_it_is_told(distribution: metadata.Distribution) -> None:
    pyproject = (PROJECT_ROOT / "pyproject.toml").read_text("utf-8")
    declared = re.findall(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    packages = [importlib.import_module(package) for package in PACKAGES]
    told = {package.__version__ for package in packages if hasattr(package, "__version__")}
    assert [*told | {distribution.version}] == declared


def test_the_saga_command_starts_something_that_can_be_called(distribution: metadata.Distribution) -> None:
    (command,) = distribution.entry_points.select(group="console_scripts", name="saga")
    assert callable(command.load())


def test_the_oldest_tox_environment_runs_on_the_lower_bound_of_every_dependency(
    distribution: metadata.Distribution,
) -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(PROJECT_ROOT / "tox.ini", "utf-8")
    pinned = {line.removeprefix("oldest: ") for line in tox["testenv"]["deps"].split("\n") if line}
    required = (Requirement(text) for text in distribution.requires or ())
    bounds = {f"{one.name}{one.specifier}".replace(">=", "==") for one in required if one.marker is None}
    assert pinned == bounds


def test_every_folder_of_tests_is_run_by_some_tox_environment() -> None:
    pyproject = (PROJECT_ROOT / "pyproject.toml").read_text("utf-8")
    (usual,) = re.findall(r"^testpaths = \[(.+)\]$", pyproject, re.MULTILINE)
    named = re.findall(r'"(.+?)"', usual) + (PROJECT_ROOT / "tox.ini").read_text("utf-8").replace("}", " ").split()
    found = {file.parent for folder in ("examples", "tests") for file in (PROJECT_ROOT / folder).rglob("test_*.py")}
    not_run = {str(folder.relative_to(PROJECT_ROOT)) for folder in found} - {name.split(":")[-1] for name in named}
    assert not not_run, (
        f"pytest collects {not_run} only where it is named: add it to testpaths, or to a tox environment"
    )


def test_the_build_runs_the_test_command_of_the_readme() -> None:
    told = TEST_COMMAND.findall((PROJECT_ROOT / "README.md").read_text("utf-8"))
    printed = subprocess.check_output([PROJECT_ROOT / ".ci" / "run", "--print"], text=True)
    assert [printed] == told
