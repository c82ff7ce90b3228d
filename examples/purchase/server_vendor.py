"""The vendor's API as the example's other side plays it: one idempotency key makes one object."""

from __future__ import annotations

import json
import sqlite3
from typing import Any
from urllib.parse import parse_qs

from saga_engine.connect.local_api import Route
from saga_engine.connect.local_state import Answer, Call, LocalState, encode, record

__all__ = ["VENDOR_ROUTES", "create", "delete", "find", "get"]

_ID_PREFIXES = {"customer": "C", "subscription": "S"}


def create(state: LocalState, call: Call) -> Answer:
    """Make a customer or a subscription; the same key gets the same answer and makes nothing new."""
    collection = _collection(call)
    if not call.key:
        return _no(400, "send an Idempotency-Key header")
    with state.transaction() as connection:
        known = _by_key(connection, collection, call.key)
        if known is not None:
            return _repeat(known, call)
        if call.refusal is not None:
            return _no(422, call.refusal)
        missing = _missing_customer(connection, call)
        if missing is not None:
            return _no(422, f"there is no customer {missing!r}")
        return Answer(201, _insert(connection, collection, call))


def find(state: LocalState, call: Call) -> Answer:
    """List what the key made and is still there: one object or none."""
    if call.refusal is not None:
        return _no(422, call.refusal)
    with state.transaction() as connection:
        row = _by_key(connection, _collection(call), parse_qs(call.query).get("key", [""])[0])
    return Answer(200, [_object(row)] if row is not None and not row["deleted"] else [])


def get(state: LocalState, call: Call) -> Answer:
    """Give one as it is now, by id: `active`, or `preparing` where new work is to be refused."""
    with state.transaction() as connection:
        row = _by_id(connection, _collection(call), call.object_id)
    if row is None or row["deleted"]:
        return _no(404, f"there is no {_collection(call)} {call.object_id!r}")
    return Answer(200, {**_object(row), "status": "active" if call.refusal is None else "preparing"})


def delete(state: LocalState, call: Call) -> Answer:
    """Delete by id; deleting what is already deleted changes nothing and is no error."""
    collection = _collection(call)
    with state.transaction() as connection:
        row = _by_id(connection, collection, call.object_id)
        if row is None:
            return _no(404, f"there is no {collection} {call.object_id!r}")
        if call.refusal is not None and not row["deleted"]:
            return _no(422, call.refusal)
        if not row["deleted"]:
            connection.execute("UPDATE vendor_object SET deleted = 1 WHERE number = ?", (row["number"],))
            record(connection, "undo", collection, call.key, call.object_id)
    return Answer(204)


def _repeat(known: sqlite3.Row, call: Call) -> Answer:
    if known["sent"] != encode(call.body):
        return _no(409, "this Idempotency-Key was used for another order")
    return Answer(201, _object(known))


def _insert(connection: sqlite3.Connection, collection: str, call: Call) -> dict[str, Any]:
    connection.execute(
        "INSERT INTO vendor_object (collection, key, sent) VALUES (?, ?, ?)",
        (collection, call.key, encode(call.body)),
    )
    row = _by_key(connection, collection, call.key)
    assert row is not None  # it was inserted in this transaction
    made = _object(row)
    record(connection, "effect", collection, call.key, made["id"])
    return made


def _missing_customer(connection: sqlite3.Connection, call: Call) -> str | None:
    if call.operation != "create_subscription":
        return None
    customer_id = str(call.body.get("customer_id", ""))
    row = _by_id(connection, "customer", customer_id)
    return customer_id if row is None or row["deleted"] else None


def _by_key(connection: sqlite3.Connection, collection: str, key: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM vendor_object WHERE collection = ? AND key = ?", (collection, key)
    ).fetchone()
    return row


def _by_id(connection: sqlite3.Connection, collection: str, object_id: str) -> sqlite3.Row | None:
    prefix, _, number = object_id.partition("-")
    if prefix != _ID_PREFIXES[collection] or not number.isdecimal():
        return None
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM vendor_object WHERE collection = ? AND number = ?", (collection, int(number))
    ).fetchone()
    return row


def _object(row: sqlite3.Row) -> dict[str, Any]:
    return {**json.loads(row["sent"]), "id": f"{_ID_PREFIXES[row['collection']]}-{row['number']}"}


def _collection(call: Call) -> str:
    return call.operation.partition("_")[2]


def _no(status: int, reason: str) -> Answer:
    return Answer(status, {"reason": reason})


def _routes(thing: str) -> list[Route]:
    return [
        Route("POST", f"/vendor/{thing}s", f"create_{thing}", create),
        Route("GET", f"/vendor/{thing}s", f"find_{thing}", find),
        Route("GET", f"/vendor/{thing}s/([^/]+)", f"get_{thing}", get),
        Route("DELETE", f"/vendor/{thing}s/([^/]+)", f"delete_{thing}", delete),
    ]


VENDOR_ROUTES = (*_routes("customer"), *_routes("subscription"))
