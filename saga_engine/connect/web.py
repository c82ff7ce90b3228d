"""The web application of one engine: its executions, and the web resources of its plugins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from saga_engine.connect.executions import engine_of_process, executions_router
from saga_engine.engine import Engine
from saga_engine.extensions.web import ResourcesRoute

__all__ = ["engine_application"]


def engine_application(engine: Engine, *, only_admin: bool = False, **options: Any) -> FastAPI:
    """Make the ASGI application that shows an engine's executions, and serves what its plugins registered.

    Serve it with any ASGI server, on an address that only those reach who may read the requests of all accounts. Its
    plugins are started with it.

    Args:
        engine: the engine; whoever made it closes it.
        only_admin: see `executions_router`; the application is not behind Connect, so nobody says who calls.
        options: more arguments of `executions_router`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(engine.start_plugins)
        yield

    application = FastAPI(title="saga-engine", openapi_url=None, lifespan=lifespan)
    application.include_router(executions_router(only_admin=only_admin, **options))
    application.dependency_overrides[engine_of_process] = lambda: engine
    application.router.routes.append(ResourcesRoute(engine.plugins.points))
    return application
