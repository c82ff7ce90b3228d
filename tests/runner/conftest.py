"""The runner's end-to-end tests share one runner per module: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runner_world import World, running_world


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The running world; a module's `ENVIRONMENT` is added to the runner's environment."""
    environment = getattr(request.module, "ENVIRONMENT", {})
    with running_world(tmp_path_factory.mktemp("runner"), **environment) as running:
        yield running
