"""An extension's project is found as it stands on disk, and what the runner could not run is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from saga_engine.connect.local_errors import BadExtension
from saga_engine.connect.local_extension import ExtensionProject

STANDARD = """
[project]
name = "my-extension"
[project.entry-points."connect.eaas.ext"]
eventsapp = "my_extension.events:Application"
"""
POETRY = """
[tool.poetry]
name = "my-extension"
[tool.poetry.plugins."connect.eaas.ext"]
eventsapp = "my_extension.events:Application"
"""
DESCRIPTOR = {"name": "Mine", "readme_url": "https://example.com/r", "changelog_url": "https://example.com/c"}


def project(folder: Path, toml: str = STANDARD, descriptor: str = json.dumps(DESCRIPTOR), source: str = ".") -> Path:
    package = folder / source / "my_extension"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(toml, "utf-8")
    (package / "events.py").write_text("class Application: ...\n", "utf-8")
    (package / "extension.json").write_text(descriptor, "utf-8")
    return folder


@pytest.mark.parametrize("toml", [STANDARD, POETRY])
def test_the_entry_points_are_those_of_the_standard_or_of_poetry(tmp_path: Path, toml: str) -> None:
    read = ExtensionProject.read(project(tmp_path, toml))
    assert (read.name, read.entry_points) == ("my-extension", {"eventsapp": "my_extension.events:Application"})


@pytest.mark.parametrize("source", [".", "src"])
def test_another_python_finds_the_project_as_if_it_were_installed(tmp_path: Path, source: str) -> None:
    read = ExtensionProject.read(project(tmp_path / "project", source=source))
    program = (
        f"import sys; sys.path[:0] = {read.search_path(tmp_path / 'points')}\n"
        "from importlib.metadata import entry_points\n"
        "[found] = entry_points(group='connect.eaas.ext', name='eventsapp')\n"
        "print(found.dist.name, found.load().__name__)"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "my-extension Application\n"


def test_the_entry_points_of_a_project_that_was_run_before_are_gone(tmp_path: Path) -> None:
    points = tmp_path / "points"
    ExtensionProject.read(project(tmp_path / "former", STANDARD.replace("my-ext", "former-ext"))).search_path(points)
    ExtensionProject.read(project(tmp_path / "latter")).search_path(points)
    assert [each.name for each in points.iterdir()] == ["my_extension-0.dist-info"]


def test_a_name_that_is_no_name_of_a_file_does_no_harm(tmp_path: Path) -> None:
    read = ExtensionProject.read(project(tmp_path / "project", STANDARD.replace("my-ext", "../../my ext")))
    read.search_path(tmp_path / "points")
    assert [each.name for each in (tmp_path / "points").iterdir()] == [".._.._my_extension-0.dist-info"]


def test_a_folder_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadExtension, match=r"nowhere/pyproject.toml: No such file .*name the folder"):
        ExtensionProject.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[project", "pyproject.toml cannot be read"),
        ("", "declares no entry points for Connect's runner"),
        ("project = 3\ntool = 4", "declares no entry points for Connect's runner"),
        ('[project]\nentry-points = "none"', "declares no entry points for Connect's runner"),
        (STANDARD.replace('"my_extension.events:Application"', "3"), "has eventsapp = 3: write"),
        (STANDARD.replace("events:App", "events.App"), 'write eventsapp = "package.module:Class"'),
    ],
)
def test_a_project_that_the_runner_could_not_find_is_refused(tmp_path: Path, toml: str, problem: str) -> None:
    with pytest.raises(BadExtension, match=problem):
        ExtensionProject.read(project(tmp_path, toml))


@pytest.mark.parametrize(
    ("descriptor", "problem"),
    [
        ("{", r"extension.json cannot be read: Expecting property name"),
        ("[]", "lacks readme_url and changelog_url"),
        (json.dumps({**DESCRIPTOR, "readme_url": "r"}).replace("changelog_url", "changelog"), "lacks changelog_url"),
    ],
)
@pytest.mark.parametrize("module", ["my_extension.events", "my_extension"])
def test_a_broken_extension_json_is_refused(tmp_path: Path, module: str, descriptor: str, problem: str) -> None:
    toml = STANDARD.replace("my_extension.events", module)
    with pytest.raises(BadExtension, match=problem):
        ExtensionProject.read(project(tmp_path, toml, descriptor))


def test_an_extension_json_that_is_elsewhere_is_left_to_the_runner(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "my_extension" / "extension.json").unlink()
    assert ExtensionProject.read(folder).entry_points
