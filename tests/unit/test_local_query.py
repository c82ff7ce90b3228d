"""Filters of a collection, as Connect's clients write them, mean what they mean in Connect."""

from __future__ import annotations

from typing import Any

import pytest
from connect.client import R

from saga_engine.connect.local_errors import BadQuery
from saga_engine.connect.local_query import Query

REQUESTS: list[dict[str, Any]] = [
    {"id": "PR-1", "status": "pending", "asset": {"id": "AS-1", "product": {"id": "PRD-1"}}},
    {"id": "PR-2", "status": "approved", "asset": {"id": "AS-2", "product": {"id": "PRD-1"}}},
    {"id": "PR-3", "status": "inquiring", "asset": {"id": "AS-3", "product": {"id": "PRD-2"}}, "note": None},
]


def meant(text: str) -> list[str]:
    query = Query.from_text(text)
    return [request["id"] for request in REQUESTS if query.is_meant(request)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ["PR-1", "PR-2", "PR-3"]),
        ("eq(id,PR-2)", ["PR-2"]),
        ("id=PR-2", ["PR-2"]),
        ("ne(id,PR-2)", ["PR-1", "PR-3"]),
        ("eq(asset.product.id,PRD-1)", ["PR-1", "PR-2"]),
        ("eq(asset.id.more,AS-1)", []),
        ("in(status,(pending,inquiring))", ["PR-1", "PR-3"]),
        ("out(status,(pending,inquiring))", ["PR-2"]),
        ("in(status,())", []),
        ("and(eq(id,PR-1),in(status,(pending)))", ["PR-1"]),
        ("and(eq(id,PR-1),in(status,(approved)))", []),
        ("or(eq(id,PR-1),eq(id,PR-3))", ["PR-1", "PR-3"]),
        ("not(eq(id,PR-1))", ["PR-2", "PR-3"]),
        ("eq(id,PR-1)&eq(status,pending)", ["PR-1"]),
        ("eq(id,\"PR-1\")&eq(status,'pending')", ["PR-1"]),
        ("eq(note,)", ["PR-1", "PR-2", "PR-3"]),
        ("ordering(-created)&select(-asset.items)&status=pending", ["PR-1"]),
        ("limit=1&offset=2&status=pending", ["PR-1"]),
    ],
)
def test_a_filter_means_the_objects_that_connect_would_give(text: str, ids: list[str]) -> None:
    assert meant(text) == ids


def test_a_filter_of_connects_own_client_is_understood() -> None:
    assert meant(str(R().id.eq("PR-1") & R().status.in_(["pending", "approved"]))) == ["PR-1"]
    assert meant(str(R().asset.product.id.eq("PRD-1") & ~R().id.eq("PR-1"))) == ["PR-2"]


def test_a_page_is_a_hundred_from_the_first_on_unless_another_one_is_asked_for() -> None:
    assert (Query.from_text("").limit, Query.from_text("").offset) == (100, 0)
    query = Query.from_text("eq(id,PR-1)&limit=7&offset=3")
    assert (query.limit, query.offset) == (7, 3)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("like(id,PR*)", "does not know the filter 'like': use and, or, not, eq, ne, in, out"),
        ("eq(id", "',' should stand before ''"),
        ("eq(id,PR-1", "'\\)' should stand before ''"),
        ("eq(id,PR-1))", "a name or a value should stand before '\\)'"),
        ("eq(,PR-1)", "a name or a value should stand before ','"),
        ("in(status,pending)", "'\\(' should stand before 'pending'"),
        ('eq(id,"PR-1)', "a quote is not closed"),
        ("limit=many", "limit is 'many'; give a number"),
        ("limit=-1", "limit is '-1'"),
        ("offset=1234567890", "at most 9 digits"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(text: str, problem: str) -> None:
    with pytest.raises(BadQuery, match=problem):
        Query.from_text(text)


def test_filters_stand_in_each_other_twenty_deep_at_most() -> None:
    assert meant("not(" * 18 + "eq(id,PR-1)" + ")" * 18) == ["PR-1"]
    with pytest.raises(BadQuery, match="more than 20 filters stand in each other"):
        Query.from_text("not(" * 5000 + "eq(id,PR-1)" + ")" * 5000)
