"""An extension's project on disk, for a runner that looks for what is installed: it runs as it stands there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saga_engine.connect.local_errors import BadExtension, MissingPackage

__all__ = ["ENTRY_POINT_GROUP", "ExtensionProject"]

ENTRY_POINT_GROUP = "connect.eaas.ext"


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
            BadExtension: it is not there, cannot be read, or has no entry points for the runner.
            MissingPackage: on Python 3.10, tomli is not installed.
        """
        file = folder.resolve() / "pyproject.toml"
        project = _read_toml(file)
        poetry = project.get("tool", {}).get("poetry", {})
        standard = project.get("project", {})
        entry_points = standard.get("entry-points", {}).get(ENTRY_POINT_GROUP) or poetry.get("plugins", {}).get(
            ENTRY_POINT_GROUP
        )
        if not entry_points:
            raise BadExtension(
                f"{file} declares no entry points for Connect's runner: add [project.entry-points."
                f'"{ENTRY_POINT_GROUP}"] with eventsapp = "package.module:Class"; a project that declares them '
                "elsewhere has to be installed beside the runner, and is not named then"
            )
        return cls(file.parent, standard.get("name") or poetry.get("name") or file.parent.name, entry_points)

    def search_path(self, folder: Path) -> list[str]:
        """Let a Python find the project's code and its entry points, before those that are installed.

        Args:
            folder: a folder of ours, for the metadata that an installation would write.

        Returns:
            Entries for PYTHONPATH.
        """
        metadata = folder / f"{self.name.replace('-', '_')}-0.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.name}\nVersion: 0\n", encoding="utf-8")
        lines = [f"[{ENTRY_POINT_GROUP}]", *(f"{name} = {value}" for name, value in self.entry_points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        source = self.folder / "src"
        return [str(folder), str(source if source.is_dir() else self.folder)]


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
