"""An extension's project on disk, for a runner that looks for what is installed: it runs as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saga_engine.connect.local_errors import BadExtension, MissingPackage

__all__ = ["ENTRY_POINT_GROUP", "ExtensionProject"]

ENTRY_POINT_GROUP = "connect.eaas.ext"
_ENTRY_POINT = re.compile(r"\w+(\.\w+)*\s*:\s*\w+(\.\w+)*")
#: The names under which the runner looks for applications.
_APPLICATIONS = frozenset({"anvilapp", "eventsapp", "extension", "webapp"})
#: What the runner takes from `extension.json` to tell Connect, without asking whether it is there.
_MANDATORY = ("readme_url", "changelog_url")


@dataclass(frozen=True)
class ExtensionProject:
    """A project of an extension.

    Args:
        folder: where it is.
        name: the name of its distribution.
        entry_points: what the runner is to load: `{"eventsapp": "package.module:Class", ...}`.
    """

    folder: Path
    name: str
    entry_points: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> ExtensionProject:
        """Read a project's `pyproject.toml`, with the entry points as the standard or as Poetry has them.

        Raises:
            BadExtension: it is not there, cannot be read, or has no entry points for the runner; or its
                `extension.json` is not what the runner wants.
            MissingPackage: on Python 3.10, tomli is not installed.
        """
        file = folder.resolve() / "pyproject.toml"
        document = _read_toml(file)
        standard, poetry = _table(document, "project"), _table(document, "tool", "poetry")
        entry_points = _table(standard, "entry-points", ENTRY_POINT_GROUP) or _table(
            poetry, "plugins", ENTRY_POINT_GROUP
        )
        if not entry_points:
            raise BadExtension(
                f"{file} declares no entry points for Connect's runner: add [project.entry-points."
                f'"{ENTRY_POINT_GROUP}"] with eventsapp = "package.module:Class"; a project that declares them '
                "elsewhere has to be installed beside the runner, and is not named then"
            )
        if not set(entry_points) & _APPLICATIONS:
            raise BadExtension(
                f"{file} names none of {', '.join(sorted(_APPLICATIONS))} among the entry points of "
                f"{ENTRY_POINT_GROUP} (but {', '.join(entry_points)}): the runner would find no application"
            )
        for name, value in entry_points.items():
            if not isinstance(value, str) or not _ENTRY_POINT.fullmatch(value):
                raise BadExtension(f'{file} has {name} = {value!r}: write {name} = "package.module:Class"')
        project = cls(file.parent, str(standard.get("name") or poetry.get("name") or file.parent.name), entry_points)
        project.check_descriptors()
        return project

    @property
    def source(self) -> Path:
        """Where its packages are."""
        source = self.folder / "src"
        return source if source.is_dir() else self.folder

    def check_descriptors(self) -> None:
        """See that each `extension.json` beside a module of an entry point is as the runner wants it.

        Without the URLs, its workers would try to connect for ever. One that is not there is left to the runner, which
        looks beside the class, wherever that was imported from.

        Raises:
            BadExtension: it is not.
        """
        for value in self.entry_points.values():
            package = self.source.joinpath(*value.partition(":")[0].strip().split("."))
            file = (package if package.is_dir() else package.parent) / "extension.json"
            if file.is_file():
                _check_descriptor(file)

    def search_path(self, folder: Path) -> list[str]:
        """Let a Python find the project's code and its entry points, before those that are installed.

        Args:
            folder: a folder of ours, made anew, for the metadata that an installation would write.

        Returns:
            Entries for PYTHONPATH.
        """
        if folder.exists():
            shutil.rmtree(folder)  # of another project: the runner would take either
        metadata = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '_', self.name)}-0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.name}\nVersion: 0\n", encoding="utf-8")
        lines = [f"[{ENTRY_POINT_GROUP}]", *(f"{name} = {value}" for name, value in self.entry_points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [str(folder), str(self.source)]


def _table(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Give the table in tables of these names; empty if there is none."""
    table: Any = document
    for name in names:
        table = table.get(name) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _check_descriptor(file: Path) -> None:
    try:
        descriptor = json.loads(file.read_bytes())
    except (OSError, ValueError) as e:
        raise BadExtension(f"{file} cannot be read: {e}") from e
    missing = [name for name in _MANDATORY if not isinstance(descriptor, dict) or name not in descriptor]
    if missing:
        raise BadExtension(f"{file} lacks {' and '.join(missing)}: the runner does not connect without")


def _read_toml(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as e:
            raise MissingPackage("on Python 3.10 this needs tomli: pip install 'saga-engine[local]'") from e
    try:
        document: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise BadExtension(f"{file}: {e.strerror}: name the folder of an extension's project") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BadExtension(f"{file} cannot be read: {e}") from e
    return document
