"""What the tests share: a request of each kind, and what stands in for the vendor and for Connect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from doubles import FakeVendor

ORDERS = Path(__file__).resolve().parents[1] / "orders"
CONFIG = {"POLL_S": "60", "APPROVE_TEMPLATE_ID": "TL-1", "INQUIRE_TEMPLATE_ID": "TL-2"}


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ORDERS / f"{name}.json").read_text("utf-8"))
    return loaded


@pytest.fixture
def config() -> dict[str, str]:
    """The variables of the extension that its steps read."""
    return dict(CONFIG)


@pytest.fixture
def purchase() -> dict[str, Any]:
    """A purchase request, as Connect delivers it."""
    return _load("purchase")


@pytest.fixture
def change() -> dict[str, Any]:
    """A change request."""
    return _load("change")


@pytest.fixture
def cancel() -> dict[str, Any]:
    """A cancel request."""
    return _load("cancel")


@pytest.fixture
def vendor() -> FakeVendor:
    """The vendor, at which nobody has bought anything yet."""
    return FakeVendor()
