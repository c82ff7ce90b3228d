"""The web application of an engine: its executions and the resources of its plugins, side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sagas import World, saga_of
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from saga_engine import Engine
from saga_engine.connect.web import engine_application
from saga_engine.extensions import plugin


class Greeter:
    """A module with a web page."""

    def __init__(self, config: dict[str, Any], api: Any) -> None:
        async def greet(request: Any) -> PlainTextResponse:
            return PlainTextResponse(f"{config['greeting']}, {request.path_params['name']}")

        api.register_web_resource("/_saga/client/greeter", Starlette(routes=[Route("/hello/{name}", greet)]))


def get(application: Any, path: str) -> httpx.Response:
    """Ask the application, without any server."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as client:
            return await client.get(path)

    return asyncio.run(call())


@pytest.fixture(scope="module")
def application() -> Any:
    module = {"module": f"{__name__}.Greeter", "config": {"greeting": "Good night"}}
    with Engine("memory://", config={}, modules=[module]) as engine:
        saga_of(World().step("a")).make(engine=engine).resolve({"id": "PR-1"})
        yield engine_application(engine)


def test_e2_a_resource_of_a_module_and_the_executions_are_served_by_one_application(application: Any) -> None:
    assert get(application, "/_saga/client/greeter/hello/ann").text == "Good night, ann"
    assert [found["saga_id"] for found in get(application, "/sagas/executions").json()] == ["Order:PR-1"]
    assert "Order:PR-1" in get(application, "/sagas/page").text


def test_what_nobody_registered_is_not_found(application: Any) -> None:
    assert get(application, "/_saga/client/nobody").status_code == 404
    assert get(application, "/sagas/executions/Order:PR-2").status_code == 404


def test_plugins_are_started_with_the_application() -> None:
    started: list[str] = []

    @plugin(id="eager", version="1")
    class Eager:
        async def start(self) -> None:
            started.append("eager")

    async def live(application: Any) -> None:
        async with application.router.lifespan_context(application):
            assert started == ["eager"]

    with Engine("memory://", plugins=[Eager]) as engine:
        asyncio.run(live(engine_application(engine)))
