"""The journals that this project ships, under the conformance suite that it ships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from saga_engine.journal import Journal
from saga_engine.journals import open_journal as open_url
from saga_engine.testing.journals import JournalConformance


class TestMemoryJournal(JournalConformance):
    """The journal in memory."""

    @pytest.fixture
    def open_journal(self) -> Callable[[], Journal]:
        return lambda: open_url("memory://")


class TestSqliteJournal(JournalConformance):
    """The journal in an SQLite file."""

    @pytest.fixture
    def open_journal(self, tmp_path: Path) -> Callable[[], Journal]:
        return lambda: open_url(f"sqlite:///{tmp_path / 'journal.db'}")
