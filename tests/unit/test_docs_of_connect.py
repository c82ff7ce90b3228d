"""What docs/migration.md and docs/connect.md name is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: A row of the table of imports: what it was, what it is.
ROW = re.compile(r"^\| (`rndi\..+?) \| (.+) \|$", re.MULTILINE)
OURS = ("middleware", "saga_engine", "transactions")


def imports() -> list[tuple[str, str]]:
    """List module and name of whatever the table of imports says is there now."""
    found = []
    for before, now in ROW.findall((DOCS / "migration.md").read_text("utf-8")):
        quoted = re.findall(r"`([\w.]+)`", now)
        module = next(name for name in quoted if name.partition(".")[0] in OURS)
        if now.startswith("the same name"):
            found += [(module, name.rpartition(".")[2]) for name in re.findall(r"`([\w.]+)`(?!:)", before)]
        elif importable(module):
            found += [(module, name) for name in quoted if name != module]
        else:
            found += [(name.rpartition(".")[0] or "saga_engine.connect", name.rpartition(".")[2]) for name in quoted]
    return found


def importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize(("module", "name"), imports())
def test_what_the_table_of_imports_says_can_be_imported(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"


def test_the_table_of_imports_is_read() -> None:
    assert {("saga_engine", "Saga"), ("transactions", "select"), ("saga_engine.connect", "approve")} <= set(imports())


@pytest.mark.parametrize("page", ["connect.md", "migration.md"])
def test_what_the_examples_of_a_page_import_can_be_imported(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    lines = re.findall(r"^from ((?:middleware|saga_engine|transactions)[\w.]*) import (.+)$", text, re.MULTILINE)
    for module, names in lines:
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{page} imports {name} from {module}"


@pytest.mark.parametrize("page", ["connect.md", "migration.md"])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text("utf-8")):
        assert (DOCS / target).exists(), f"{page} links to {target}"
