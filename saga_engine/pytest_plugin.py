"""A plugin for pytest, found by itself: fixtures for the tests of an extension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from saga_engine.connect.local import LocalConnect

__all__ = ["local_connect"]


@pytest.fixture
def local_connect(tmp_path: Path) -> Iterator[LocalConnect]:
    """Give a Connect on this machine, for one test; its runner, once started, ends with the test.

    It needs the extra `local`. See `saga_engine.connect.LocalConnect`.
    """
    from saga_engine.connect.local import LocalConnect  # only for who asks for it: pytest loads this file every time

    with LocalConnect(tmp_path / "connect") as connect:
        yield connect
