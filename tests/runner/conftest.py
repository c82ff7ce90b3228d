"""The runner's end-to-end tests share one runner per process of the tests: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runner_world import World, running_world


@pytest.fixture(scope="session")
def usual_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world with the example extension."""
    with running_world(tmp_path_factory.mktemp("runner")) as running:
        yield running


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The running world; a module gets one of its own by an `ENVIRONMENT` for its runner, or an `EXTENSION` to run."""
    environment = getattr(request.module, "ENVIRONMENT", None)
    extension = getattr(request.module, "EXTENSION", None)
    if environment is None and extension is None:
        yield request.getfixturevalue("usual_world")
        return
    with running_world(tmp_path_factory.mktemp("runner"), extension, **(environment or {})) as running:
        yield running
