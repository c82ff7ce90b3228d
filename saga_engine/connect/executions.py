"""executions_router: shows executions in the extension's own web application, as JSON and as pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import msgspec
from connect.eaas.core.inject.common import get_config
from fastapi import APIRouter, Depends, Query, Request
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from saga_engine.engine import Engine, default_engine, journal_url
from saga_engine.errors import BadDefinition, BadRequest, JournalUnavailable, NotAllowed, SagaError, UnknownExecution
from saga_engine.journal import SagaStatus
from saga_engine.listing import is_missing, note_of, record_told, statuses_of_children, summary_of, whole_of
from saga_engine.narration import date_time, duration, notable, one_line, row_notes, standing_lines, waits_for_right
from saga_engine.record import SagaRecord, as_tombstone
from saga_engine.timeline import Timeline

__all__ = ["engine_of_process", "executions_router"]

_LIMIT = 50
#: How many events are shown below the steps.
_EVENTS_MAX = 30
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
}
_STATUS_CODES: dict[type[SagaError], int] = {UnknownExecution: 404, BadRequest: 400, NotAllowed: 403}


def engine_of_process(config: dict[str, Any] = Depends(get_config)) -> Engine:  # noqa: B008  # FastAPI's way
    """Give the engine of this process, unless it would begin a journal."""
    url = journal_url(config)
    if is_missing(url):
        raise JournalUnavailable(
            f"there is no journal at {url} yet: it begins with the first request. If there were requests, let the web "
            "application have the SAGA_JOURNAL_URL, and the volume, that the events application has"
        )
    return default_engine(config)


#: What the routes read; `config` are the variables of the extension, as the runner sends them with each call.
_ENGINE = Depends(engine_of_process)


def executions_router(*, prefix: str = "/sagas", limit_max: int = 500, only_admin: bool = True) -> APIRouter:
    """Make the routes that show executions; nothing can be changed by them.

    `GET /executions` and `GET /executions/{saga_id}` give what `saga list --json` and `saga show --json` give;
    `GET /page` and `GET /page?saga_id=...` give the same to a person. What stands under the key of a secret (password,
    token, ...) is `***`. The journal is the one of the process's default engine, opened at the first request.

    Args:
        prefix: the path below which the routes are.
        limit_max: the most executions that one list may have.
        only_admin: refuse calls that do not come from the account that owns the extension. Executions hold the
            requests of all accounts; with False, every account that has the extension installed can read them.

    Raises:
        BadDefinition: an argument cannot be meant.
    """
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise BadDefinition(f"executions_router(prefix={prefix!r}): give a path such as /sagas")
    if not isinstance(limit_max, int) or isinstance(limit_max, bool) or limit_max < 1:
        raise BadDefinition(f"executions_router(limit_max={limit_max!r}): give an int of at least 1")
    guards = [Depends(_refuse_others)] if only_admin else []
    router = APIRouter(prefix=prefix, tags=["sagas"], dependencies=guards, route_class=_Route)
    for path, endpoint in (
        ("/executions", _list(min(_LIMIT, limit_max), limit_max)),
        ("/executions/{saga_id:path}", show_execution),
        ("/page", _page(min(_LIMIT, limit_max), limit_max)),
    ):
        router.add_api_route(path, endpoint, methods=["GET"], response_model=None)
    return router


class _Route(APIRoute):
    """A route that answers our errors: the web application around it knows nothing of them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, is_page = super().get_route_handler(), self.path.endswith("/page")

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except SagaError as error:
                return _refusal(error, is_page)

        return answer


def _refusal(error: SagaError, is_page: bool) -> Response:
    code = next((code for kind, code in _STATUS_CODES.items() if isinstance(error, kind)), 503)
    if is_page:
        return _html("page.html", code, title="Executions", message=one_line(str(error)))
    return _json({"error": {"type": type(error).__name__, "message": one_line(str(error))}}, code)


def _refuse_others(request: Request) -> None:
    """Refuse whoever is not of the account that owns the extension.

    All values of the header count: a caller may send one, and the runner adds its own behind it.
    """
    if set(request.headers.getlist("x-connect-call-type")) != {"admin"}:
        raise NotAllowed(
            "executions are shown to the account that owns the extension only, which Connect tells by the header "
            "X-Connect-Call-Type: admin; executions_router(only_admin=False) shows them to all"
        )


# --- JSON ---


def _list(limit_usual: int, limit_max: int) -> Callable[..., Response]:
    def list_executions(
        status: SagaStatus | None = None,
        saga: str | None = None,
        stuck: bool = False,
        limit: int = Query(limit_usual, ge=1, le=limit_max),
        engine: Engine = _ENGINE,
    ) -> Response:
        """List executions, newest first."""
        headers = engine.journal.search(status=status, saga=saga, stuck=stuck, limit=limit)
        return _json([summary_of(engine, header) for header in headers])

    return list_executions


def show_execution(saga_id: str, engine: Engine = _ENGINE) -> Response:
    """Show one execution, with its steps."""
    return _json(record_told(engine.get(saga_id)))


def _json(value: Any, code: int = 200) -> Response:
    return Response(msgspec.json.encode(value), code, _HEADERS, "application/json")


# --- pages ---


def _page(limit_usual: int, limit_max: int) -> Callable[..., Response]:
    def show_page(
        saga_id: str | None = None,
        status: str = "",
        saga: str = "",
        stuck: bool = False,
        limit: int = Query(limit_usual, ge=1, le=limit_max),
        engine: Engine = _ENGINE,
    ) -> Response:
        """Show the list of executions, or one of them, to a person."""
        if saga_id is not None:
            return _html("execution.html", **_told_of_one(engine, saga_id))
        wanted = _status(status)
        headers = engine.journal.search(status=wanted, saga=saga or None, stuck=stuck, limit=limit)
        now = time.time()
        rows = [
            {
                "saga_id": as_tombstone(header).saga_id,
                "status": header.status.value,
                "updated": f"{duration(max(0.0, now - header.updated_at))} ago",
                "note": one_line(note_of(engine, header)),
            }
            for header in headers
        ]
        asked = {"status": wanted, "saga": saga, "stuck": stuck, "limit": limit, "limit_max": limit_max}
        return _html("executions.html", title="Executions", rows=rows, asked=asked, statuses=list(SagaStatus))

    return show_page


def _status(text: str) -> SagaStatus | None:
    """Read what the page's form sends: an empty text for all."""
    try:
        return SagaStatus(text) if text else None
    except ValueError:
        raise BadRequest(f"status is {text!r}: give one of {', '.join(one.value for one in SagaStatus)}") from None


def _told_of_one(engine: Engine, saga_id: str) -> dict[str, Any]:
    record = engine.get(saga_id)
    told: dict[str, Any] = {
        "title": record.saga_id,
        "status": record.status.value,
        "lines": standing_lines(record),
        "stuck": record.stuck,
        "is_purged": record.is_purged,
        "steps": [],
        "events": [],
        "events_left_out": 0,
    }
    if record.is_purged:
        return told
    entries, child = whole_of(engine, record, engine.history(saga_id))
    timeline, events = Timeline(entries), notable(entries)
    told["lines"] += waits_for_right(timeline)
    told["steps"] = _steps(timeline, record, child)
    told["events"] = [(date_time(at), text) for at, text in events[-_EVENTS_MAX:]]
    told["events_left_out"] = max(0, len(events) - _EVENTS_MAX)
    return told


def _steps(timeline: Timeline, record: SagaRecord, child: str) -> list[dict[str, Any]]:
    statuses = dict(statuses_of_children(record.steps, child))
    return [
        {
            "lead": row.lead,
            "label": one_line(row.label),
            "status": "" if (status := row.status or statuses.get(row.step)) is None else status.value,
            "attempts": row.attempts or "",
            "after": _seconds(row.began_after_s),
            "took": _seconds(row.took_s),
            "notes": row_notes(row, record.status),
        }
        for row in timeline.rows(time.time(), child)
    ]


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


@cache
def _templates() -> Environment:
    """Load the templates; everything that is put into them is escaped."""
    return Environment(
        loader=PackageLoader("saga_engine", "connect"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def _html(name: str, code: int = 200, **told: Any) -> HTMLResponse:
    return HTMLResponse(_templates().get_template(name).render(told), code, _HEADERS)
