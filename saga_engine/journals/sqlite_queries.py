"""The named queries of `queries.sql`, ready to execute."""

from __future__ import annotations

import re
from importlib import resources

__all__ = ["queries"]


def _load() -> dict[str, str]:
    """Read the queries, without their comments: SQLite would parse those again and again."""
    text = (resources.files("saga_engine.journals") / "queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- (\w+) --$", text, flags=re.MULTILINE)[1:]
    bodies = (re.sub(r"^--.*$", "", body, flags=re.MULTILINE).strip() for body in parts[1::2])
    return dict(zip(parts[::2], bodies, strict=True))


queries = _load()
