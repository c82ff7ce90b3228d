"""Finding what a text names, as `package.module:Qualified.Name`."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["import_named"]


def import_named(path: str) -> Any:
    """Import what a path names.

    Raises:
        Exception: whatever the import runs into; an AttributeError if the module has no such name.
    """
    module_name, _, qualified = path.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in qualified.split("."):
        found = getattr(found, name)
    return found
