"""What connectors send to Connect: by the real clients, to a server that writes it down."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from connect.client import AsyncConnectClient, ClientError, ConnectClient

from saga_engine.connect import AssetRequest, TierConfigRequest, approve, fail, inquire, refresh, update_parameters
from saga_engine.errors import BadRequest

pytestmark = pytest.mark.anyio

TIER_CONFIG = {"id": "TCR-1", "params": [{"id": "region", "value": ""}], "configuration": {"params": []}}


class Connect(BaseHTTPRequestHandler):
    """Writes down what it is asked for, and says yes; or no, if that is wanted."""

    calls: list[tuple[str, str, Any]]
    refusal: int | None

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.calls.append((self.command, self.path, json.loads(self.rfile.read(length)) if length else None))
        body = json.dumps({"id": "PR-1", "status": "approved"}).encode()
        self.send_response(self.refusal or 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def connect() -> Iterator[Any]:
    handler = type("Handler", (Connect,), {"calls": [], "refusal": None})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        handler.url = f"http://127.0.0.1:{server.server_port}/public/v1"
        yield handler
        server.shutdown()


@pytest.fixture(params=[ConnectClient, AsyncConnectClient], ids=["plain", "async"])
def client(request: pytest.FixtureRequest, connect: Any) -> Any:
    return request.param("ApiKey K", endpoint=connect.url, use_specs=False, max_retries=0)


async def done(answer: Any) -> Any:
    """Give Connect's answer, whichever client asked."""
    return await answer if inspect.isawaitable(answer) else answer


def order() -> AssetRequest:
    params = [{"id": "email", "value": "a@b.example"}, {"id": "customer_id", "value": ""}]
    return AssetRequest({"id": "PR-1", "asset": {"id": "AS-1", "params": params}})


async def test_an_asset_request_is_approved_failed_and_inquired(client: Any, connect: Any) -> None:
    await done(approve(client, order(), template_id="TL-1"))
    await done(approve(client, order(), activation_tile="# It is there"))
    await done(fail(client, order(), "no such customer"))
    await done(inquire(client, order(), template_id="TL-2"))
    await done(inquire(client, order()))
    assert (await done(refresh(client, order())))["status"] == "approved"
    path = "/public/v1/requests/PR-1"
    assert connect.calls == [
        ("POST", f"{path}/approve", {"template_id": "TL-1"}),
        ("POST", f"{path}/approve", {"activation_tile": "# It is there"}),
        ("POST", f"{path}/fail", {"reason": "no such customer"}),
        ("POST", f"{path}/inquire", {"template_id": "TL-2"}),
        ("POST", f"{path}/inquire", None),
        ("GET", path, None),
    ]


async def test_a_tier_config_request_is_found_where_it_is(client: Any, connect: Any) -> None:
    request = TierConfigRequest(json.loads(json.dumps(TIER_CONFIG)))
    request.parameters["region"] = "EU"
    await done(update_parameters(client, request))
    await done(approve(client, request, template_id="TL-1"))
    path = "/public/v1/tier/config-requests/TCR-1"
    assert connect.calls == [
        ("PUT", path, {"params": [{"id": "region", "value": "EU"}]}),
        ("POST", f"{path}/approve", {"template_id": "TL-1"}),
    ]


async def test_only_parameters_that_changed_are_sent(client: Any, connect: Any) -> None:
    request = order()
    request.parameters["customer_id"] = "C-1"
    await done(update_parameters(client, request))
    assert connect.calls == [
        ("PUT", "/public/v1/requests/PR-1", {"asset": {"params": [{"id": "customer_id", "value": "C-1"}]}})
    ]


async def test_nothing_is_sent_if_nothing_changed(client: Any, connect: Any) -> None:
    assert await done(update_parameters(client, order())) is None
    assert connect.calls == []


async def test_what_connect_refuses_is_raised(client: Any, connect: Any) -> None:
    connect.refusal = 400
    with pytest.raises(ClientError, match="400 Bad Request"):
        await done(approve(client, order(), template_id="TL-1"))


@pytest.mark.parametrize("shown", [{}, {"template_id": "TL-1", "activation_tile": "text"}])
async def test_an_approval_shows_one_thing(client: Any, connect: Any, shown: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="approve PR-1: give template_id or activation_tile"):
        await done(approve(client, order(), **shown))
    assert connect.calls == []


@pytest.mark.parametrize("reason", ["", "  ", None])
async def test_a_failure_says_why(client: Any, connect: Any, reason: Any) -> None:
    with pytest.raises(BadRequest, match="fail PR-1: say why"):
        await done(fail(client, order(), reason))
    assert connect.calls == []
