"""What every test gets: the project's root last on the import path, and hypothesis without a stopwatch."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

PROJECT_ROOT = Path(__file__).resolve().parents[1]

# Last, not first: `examples` and `benchmarks` are found here, the three packages in the installed wheel.
sys.path.append(str(PROJECT_ROOT))

# A slow machine is no failure. The parent is what hypothesis chose itself: reproducible where CI is set.
settings.register_profile("saga-engine", parent=settings(), deadline=None, print_blob=True)
settings.load_profile("saga-engine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that the async driver supports."""
    return "asyncio"
