"""executions_router: the same data as `saga list` and `saga show`, masked, escaped, limited, for the owner only."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from connect.eaas.core.responses import BackgroundResponse
from fastapi import APIRouter, FastAPI
from sagas import World, saga_of
from tenacity import stop_after_attempt

from saga_engine import Engine, Parallel, Saga
from saga_engine.cli import main
from saga_engine.connect import executions_router
from saga_engine.errors import BadDefinition
from transactions import BackgroundTransaction, RetryPolicy

Get = Callable[..., httpx.Response]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'saga.db'}"


@pytest.fixture
def get(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Get]:
    """`get("/executions", headers={...}, **options of the router)`: ask as the runner does, below its prefix."""
    made: dict[Any, Engine] = {}
    monkeypatch.setattr("saga_engine.engine._engines", made)

    def ask(path: str, headers: Any = None, method: str = "GET", **options: Any) -> httpx.Response:
        # As an extension does it: into the router of its web application, which the runner puts below /api.
        own, app = APIRouter(), FastAPI()
        own.include_router(executions_router(**options))
        app.include_router(own, prefix="/api")
        usual = {"X-Connect-Call-Type": "admin", "X-Connect-Config": json.dumps({"SAGA_JOURNAL_URL": url})}

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as client:
                return await client.request(method, f"/api/sagas{path}", headers=usual if headers is None else headers)

        return asyncio.run(call())

    yield ask
    for engine in made.values():
        engine.close()


class Reserve(BackgroundTransaction):
    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.done()

    def compensate(self, request: dict[str, Any], e: Exception) -> BackgroundResponse:
        return BackgroundResponse.done()


class Label(Reserve):
    def name(self) -> str:
        return "Print <b>label</b>"

    def execute(self, request: dict[str, Any]) -> BackgroundResponse:
        return BackgroundResponse.fail("<script>alert(1)</script>")


class KidSaga(Saga):
    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Reserve]


class FailingSaga(Saga):
    def transactions(self, request: dict[str, Any]) -> list[Any]:
        return [Parallel(Reserve, KidSaga), Label]


@pytest.fixture
def filled(url: str) -> str:
    """A journal with one execution that failed, one that completed, and one that is parked."""
    with Engine(url, config={}) as engine:
        FailingSaga.make(engine=engine).resolve({"id": "PR-1", "api_key": "hush", "params": [{"id": "token"}]})
        saga_of(World().step("a")).make(engine=engine).resolve({"id": "PR 2/3 #x"})
        once = RetryPolicy(stop=stop_after_attempt(1))
        cannot = World().step("b", ValueError("no"), undo=ValueError("no undo"), compensation_retry=once)
        saga_of(World().step("a", undo=None), cannot).make(engine=engine).resolve({"id": "PR-4"})
    return url


def told_by_saga(*arguments: str) -> Any:
    """Give what a command of `saga` prints as JSON."""
    return json.loads(CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False).output)


# --- JSON ---


def test_the_list_is_what_saga_list_tells(get: Get, filled: str) -> None:
    response = get("/executions")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == told_by_saga("list", "--journal", filled)
    assert [one["saga_id"] for one in response.json()] == ["Order:PR-4", "Order:PR 2/3 #x", "FailingSaga:PR-1"]


@pytest.mark.parametrize("saga_id", ["FailingSaga:PR-1", "Order:PR 2/3 #x", "FailingSaga:PR-1/KidSaga"])
def test_one_execution_is_what_saga_show_tells(get: Get, filled: str, saga_id: str) -> None:
    path = saga_id.replace(" ", "%20").replace("#", "%23")
    told = get(f"/executions/{path}").json()
    assert told == told_by_saga("show", saga_id, "--journal", filled)
    assert told["saga_id"] == saga_id


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("status=COMPLETED", ["Order:PR 2/3 #x"]),
        ("saga=FailingSaga", ["FailingSaga:PR-1"]),
        ("limit=1", ["Order:PR-4"]),
        ("stuck=true", []),
    ],
)
def test_the_list_can_be_narrowed(get: Get, filled: str, query: str, keys: list[str]) -> None:
    assert [one["saga_id"] for one in get(f"/executions?{query}").json()] == keys


def test_secrets_are_masked_everywhere(get: Get, filled: str) -> None:
    told = get("/executions/FailingSaga:PR-1")
    assert told.json()["request"]["api_key"] == "***"
    for path in ("/executions", "/executions/FailingSaga:PR-1", "/page", "/page?saga_id=FailingSaga:PR-1"):
        assert "hush" not in get(path).text


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=many", "status=GONE"])
def test_a_list_is_limited_and_its_filters_checked(get: Get, filled: str, query: str) -> None:
    assert get(f"/executions?{query}").status_code == 422


def test_the_router_may_limit_lists_further(get: Get, filled: str) -> None:
    assert len(get("/executions", limit_max=2).json()) == 2
    assert get("/executions?limit=3", limit_max=2).status_code == 422


def test_an_unknown_execution_is_not_found(get: Get, filled: str) -> None:
    response = get("/executions/Order:PR-9")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "UnknownExecution"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_changed(get: Get, filled: str, method: str) -> None:
    for path in ("/executions", "/executions/Order:PR-4", "/page"):
        assert get(path, method=method).status_code == 405


def test_a_journal_that_is_not_there_is_told_of_and_not_begun(get: Get, tmp_path: Path) -> None:
    for path in ("/executions", "/executions/Order:PR-1", "/page"):
        response = get(path)
        assert response.status_code == 503
        assert "SAGA_JOURNAL_URL" in response.text
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_an_error_of_ours(get: Get, tmp_path: Path) -> None:
    (tmp_path / "saga.db").write_bytes(b"no database at all" * 100)
    response = get("/executions")
    assert (response.status_code, response.json()["error"]["type"]) == (503, "ForeignJournal")


# --- who may look ---


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Connect-Call-Type": "user"}, [("x-connect-call-type", "admin"), ("X-Connect-Call-Type", "user")]],
)
def test_only_the_account_that_owns_the_extension_may_look(get: Get, filled: str, headers: Any) -> None:
    for path in ("/executions", "/executions/Order:PR-4", "/page"):
        response = get(path, headers)
        assert response.status_code == 403
        assert "Order" not in response.text


def test_an_extension_may_let_all_its_accounts_look(get: Get, filled: str) -> None:
    config = {"X-Connect-Config": json.dumps({"SAGA_JOURNAL_URL": filled})}
    assert len(get("/executions", config, only_admin=False).json()) == 3


# --- pages ---


def test_the_page_lists_executions_with_links_to_each(get: Get, filled: str) -> None:
    page = get("/page")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.findall(r'href="(\?saga_id=[^"]+)"', page.text) == [
        "?saga_id=Order%3APR-4",
        "?saga_id=Order%3APR%202/3%20%23x",
        "?saga_id=FailingSaga%3APR-1",
    ]
    for query in re.findall(r'href="(\?[^"]+)"', page.text):
        assert get(f"/page{query}").status_code == 200


def test_a_page_shows_the_steps_of_one_execution_and_of_its_children(get: Get, filled: str) -> None:
    page = get("/page?saga_id=FailingSaga:PR-1").text
    assert page.count("COMPENSATED</td>") == 3
    assert all(text in page for text in ("KidSaga", "Reserve", "undone in", "All executions"))
    parked = get("/page?saga_id=Order:PR-4").text
    assert "parked at" in parked
    assert "next: " in parked


def test_what_stands_in_executions_is_escaped(get: Get, filled: str) -> None:
    for path in ("/page", "/page?saga_id=FailingSaga:PR-1", "/page?saga_id=<script>", "/page?saga=%22%3E%3Cscript%3E"):
        page = get(path).text
        assert "<script>" not in page
        assert "<b>label" not in page
    assert "&lt;script&gt;alert(1)" in get("/page").text


@pytest.mark.parametrize(
    ("query", "count", "chosen"),
    [
        ("status=COMPLETED&saga=&limit=50", 1, "<option selected>COMPLETED"),
        ("status=&saga=Order&stuck=true", 0, "checked"),
    ],
)
def test_the_form_of_the_page_narrows_the_list_and_keeps_what_was_chosen(
    get: Get, filled: str, query: str, count: int, chosen: str
) -> None:
    page = get(f"/page?{query}").text
    assert page.count("?saga_id=") == count
    assert chosen in page
    assert ("No executions like that." in page) is (count == 0)


@pytest.mark.parametrize(("query", "code"), [("status=GONE", 400), ("saga_id=Order:PR-9", 404)])
def test_errors_are_pages_too(get: Get, filled: str, query: str, code: int) -> None:
    page = get(f"/page?{query}")
    assert (page.status_code, page.headers["content-type"]) == (code, "text/html; charset=utf-8")
    assert 'class="stuck"' in page.text


def test_a_page_of_a_purged_execution_tells_that(get: Get, filled: str) -> None:
    with Engine(filled) as engine:
        assert engine.purge(0) == 2
    assert "nothing else is left of it" in get("/page?saga_id=FailingSaga:PR-1").text
    assert get("/executions/FailingSaga:PR-1").json()["is_purged"] is True


def test_no_browser_keeps_a_page_or_runs_scripts_in_it(get: Get, filled: str) -> None:
    for path in ("/executions", "/page", "/page?saga_id=No"):
        headers = get(path).headers
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "options", [{"prefix": "sagas"}, {"prefix": "/sagas/"}, {"limit_max": 0}, {"limit_max": True}, {"limit_max": "9"}]
)
def test_a_router_that_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadDefinition, match="executions_router"):
        executions_router(**options)
