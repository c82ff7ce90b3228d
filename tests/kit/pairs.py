"""Marks that run a test on both journals and with both drivers, without running every combination of them."""

from __future__ import annotations

import pytest

_NAMES = ("journal_url", "driver")

#: Both journals, both drivers.
in_pairs = pytest.mark.parametrize(_NAMES, [("memory", "async"), ("sqlite", "sync")], indirect=True)

#: Plain steps on an event loop, too: they run in threads there.
in_all_pairs = pytest.mark.parametrize(
    _NAMES, [("memory", "async"), ("sqlite", "sync"), ("sqlite", "async with plain steps")], indirect=True
)
